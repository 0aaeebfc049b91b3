//! Encoded samples of the start record. See `muster_compat`.

use std::fs;

use muster_compat::{check, with_new_fields_json};
use muster_types::NodeName;
use muster_types::etcd::{EtcdGeneration, EtcdPeer, InitialClusterState, url};

use super::{EtcdDir, EtcdDirError, GenerationState};
use crate::units::etcd::{InitialCluster, StartRecord};

fn record() -> StartRecord {
    let name: NodeName = "cp-1".parse().unwrap();
    let members =
        vec![EtcdPeer { name: name.clone(), url: url("192.0.2.1:2380".parse().unwrap()) }];
    let state = InitialClusterState::New;
    let mut record =
        StartRecord::new(name, InitialCluster { state, token: "token".to_owned(), members });
    record.had_data = true;
    record.restored_from = Some("ab".repeat(32));
    record
}

#[test]
fn a_start_record_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let dir = EtcdDir::new(directory.path().to_owned());
    dir.write(EtcdGeneration(2), &record()).unwrap();
    let path = directory.path().join("g2.started");
    let sample = check("etcd/g2.started.json", &fs::read(&path).unwrap());
    let extended = with_new_fields_json(&sample, &[]);
    for file in [sample, extended] {
        fs::write(&path, file).unwrap();
        let state = dir.generation_state(EtcdGeneration(2)).unwrap();
        assert_eq!(state, GenerationState::Lost(record()));
    }
    fs::write(&path, br#"{"format": 2, "everythingElse": "differs"}"#).unwrap();
    let error = dir.generation_state(EtcdGeneration(2)).unwrap_err();
    assert!(matches!(error, EtcdDirError::Newer { .. }), "{error}");
}
