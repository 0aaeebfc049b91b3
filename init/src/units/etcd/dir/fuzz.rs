//! Fuzz target of the start record. `muster_fuzz` defines a target.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_types::NodeName;
use muster_types::etcd::{EtcdGeneration, EtcdPeer, InitialClusterState, url};

use super::{EtcdDir, GenerationState};
use crate::units::etcd::{InitialCluster, StartRecord};

/// `gN.started`: the start record of a generation.
#[test]
fn etcd_record() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = EtcdDir::new(directory.path().to_owned());
    let name: NodeName = "cp-1".parse().expect("a node name");
    let peer = "192.0.2.1:2380".parse().expect("an address");
    let initial = InitialCluster {
        state: InitialClusterState::New,
        token: "token".to_owned(),
        members: vec![EtcdPeer { name: name.clone(), url: url(peer) }],
    };
    dir.write(EtcdGeneration(0), &StartRecord::new(name, initial)).expect("written");
    let path = directory.path().join("g0.started");
    let seed = fs::read(&path).expect("read");
    target("etcd_record").seed(seed).tries(2000).run(move |bytes| {
        let _kept = &directory;
        fs::write(&path, bytes).expect("a small file is written");
        match dir.generation_state(EtcdGeneration(0)) {
            Ok(GenerationState::Started(record) | GenerationState::Lost(record)) => {
                let text = serde_json::to_vec(&record).expect("a start record always serializes");
                fs::write(&path, text).expect("a small file is written");
                let again = dir.generation_state(EtcdGeneration(0)).expect("just written");
                let (GenerationState::Started(found) | GenerationState::Lost(found)) = again else {
                    panic!("{again:?}")
                };
                assert_eq!(found, record);
                Verdict::Accepted
            }
            Ok(other) => panic!("a record that is there counts as {other:?}"),
            Err(error) => refused(error),
        }
    });
}
