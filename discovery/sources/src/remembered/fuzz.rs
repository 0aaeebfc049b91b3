//! Fuzz target of `peers.json`; `muster_fuzz` defines a target.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_types::{NodeId, Role};

use super::{RememberedPeer, encode, read, write};

/// `peers.json`.
#[test]
fn remembered_peers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("peers.json");
    let peer = |number| RememberedPeer {
        id: NodeId::from_bytes([number; 32]),
        name: format!("cp-{number}").parse().expect("a node name"),
        role: Role::ControlPlane,
        addresses: vec!["192.0.2.1:50000".parse().expect("an address"); 2],
    };
    write(&path, &[peer(1), peer(2)]).expect("written");
    let seed = fs::read(&path).expect("read");
    target("remembered_peers").seed(seed).tries(2000).run(move |bytes| {
        let kept = &directory;
        let path = kept.path().join("peers.json");
        fs::write(&path, bytes).expect("a small file is written");
        match read(&path) {
            Err(error) => refused(error),
            Ok(peers) => {
                assert!(peers.iter().all(|peer| peer.addresses.len() <= 16));
                let text = encode(&peers).expect("plain data");
                fs::write(&path, text).expect("a small file is written");
                assert_eq!(read(&path).expect("just written"), peers);
                Verdict::Accepted
            }
        }
    });
}
