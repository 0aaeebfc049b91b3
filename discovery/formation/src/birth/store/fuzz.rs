//! Fuzz target of the file `birth`; `muster_fuzz` defines a target.

use std::fs;
use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_types::ClusterId;
use ring::digest::{SHA256, digest};

use super::PromiseStore;
use crate::birth::testing::{certificate, fixed_founders, proposal};
use crate::birth::{Ballot, BirthRecord, Commitment, Decision, Promise, Vote};

/// The file `birth`: raw, and with a correct checksum.
#[test]
fn birth_record() {
    let founders = fixed_founders(3);
    let proposal = Arc::new(proposal(&founders));
    let certificate = Arc::new(certificate(&founders));
    let (node, ballot) = (founders[0].node_id(), Ballot { round: 2, by: founders[1].node_id() });
    let vote = Some(Vote { ballot, decision: Decision::Born(Arc::clone(&certificate)) });
    let commitments = [
        Commitment::None,
        Commitment::Promised(Promise { proposal, ballot, vote }),
        Commitment::Born(certificate),
        Commitment::Joined(ClusterId::from_bytes([4; 32])),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("birth");
    let store = PromiseStore::create(directory.path(), node).expect("a record is made");
    let files = commitments.map(|commitment| store.encode(&BirthRecord { epoch: 3, commitment }));
    let behind = files.clone().map(|file| [b"=", &file[8..file.len() - 32]].concat());
    let [whole, ..] = files;
    target("birth_record").seed(whole).seeds(behind).longest(8 << 10).run(move |bytes| {
        let _kept = &directory;
        let sealed = bytes.strip_prefix(b"=").map(sealed);
        fs::write(&path, sealed.as_deref().unwrap_or(bytes)).expect("a small file is written");
        match store.read() {
            Err(error) => {
                assert!(error.to_string().contains("birth record"), "{error}");
                refused(error)
            }
            Ok(record) => {
                fs::write(&path, store.encode(&record)).expect("a small file is written");
                assert_eq!(store.read().expect("just written"), record);
                Verdict::Accepted
            }
        }
    });
}

/// Returns a record file with this content and its checksum.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = b"MBIRTH\0\x01".to_vec();
    file.extend_from_slice(body);
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    file
}
