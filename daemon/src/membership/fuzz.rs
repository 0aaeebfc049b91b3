//! Fuzz targets for the reply to a join and the membership file. See `muster_fuzz`.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{Admitted, Credentials, Peer};
use muster_types::{ClusterId, Role};
use prost::Message as _;

use super::{Membership, seal};
use crate::convert;

/// Memory bound. serde reserves 1 MiB for a declared length, once for each level of nesting.
const RESERVED: usize = 4 << 20;

fn peer(number: u8) -> Peer {
    Peer {
        public_key: vec![number; 32],
        name: format!("cp-{number}"),
        role: muster_messages::hello::NodeRole::ControlPlane.into(),
        addresses: vec!["192.0.2.1:50000".to_owned()],
    }
}

/// The reply to a join, and the file `membership.json` made from it.
#[test]
fn admitted() {
    let answer = Admitted {
        cluster_id: vec![9; 32],
        cluster_name: "demo".to_owned(),
        credentials: Some(Credentials {
            certificate_chain: vec![vec![0x30, 0]],
            machine_authorities: vec![vec![0x30, 0]],
        }),
        peers: vec![peer(1), peer(2)],
    };
    target("admitted").seed(answer.encode_to_vec()).memory(256 << 10, 128).run(|bytes| {
        let answer = match Admitted::decode(bytes) {
            Ok(answer) => answer,
            Err(error) => return refused(error),
        };
        match Membership::from_admission(&answer, Role::Worker) {
            Ok(membership) => {
                let text = serde_json::to_vec(&membership).expect("plain data with text keys");
                let again: Membership = serde_json::from_slice(&text).expect("just written");
                assert_eq!(again, membership);
                assert_eq!(membership.cluster_id.to_vec(), answer.cluster_id);
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}

#[test]
fn membership_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("membership.json");
    let mut membership = Membership::from_admission(
        &Admitted {
            cluster_id: ClusterId::from_bytes([9; 32]).to_vec(),
            cluster_name: "demo".to_owned(),
            credentials: Some(Credentials {
                certificate_chain: vec![vec![0x30, 0]],
                machine_authorities: vec![vec![0x30, 0]],
            }),
            peers: Vec::new(),
        },
        Role::ControlPlane,
    )
    .expect("a well-formed reply");
    membership.set_peers(&convert::directory(&[peer(1), peer(2)]));
    let seed = serde_json::to_vec(&membership).expect("plain data");
    target("membership_file").seed(seed).memory(RESERVED, 64).tries(2000).run(move |bytes| {
        let _kept = &directory;
        // Adds the right checksum, so that the parser behind it is fuzzed as well.
        let file = if bytes.starts_with(b"{\"") && !bytes.starts_with(b"{\"sha256") {
            seal(bytes)
        } else {
            bytes.to_vec()
        };
        fs::write(&path, file).expect("a small file can be written");
        match Membership::load(&path) {
            Err(error) => refused(muster_types::error::chain(&error)),
            Ok(None) => panic!("the file is there"),
            Ok(Some(membership)) => {
                membership.directory();
                membership.certificate();
                membership.save(&path).expect("a small file can be written");
                assert_eq!(Membership::load(&path).expect("just written"), Some(membership));
                Verdict::Accepted
            }
        }
    });
}
