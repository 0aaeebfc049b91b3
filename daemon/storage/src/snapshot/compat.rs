//! Encoded samples of snapshot files. See `muster_compat`. The samples of the state in them are
//! those of `muster_state`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_compat::{check, with_new_fields_msgpack};
use muster_state::ClusterState;
use muster_types::NodeId;
use muster_types::format::NewerFormat;
use openraft::{CommittedLeaderId, EmptyNode, LogId, Membership, SnapshotMeta, StoredMembership};
use ring::digest::{SHA256, digest};

use super::file;
use super::store::SnapshotStore;
use crate::codec::{pack, unpack};
use crate::durable_index::DurableWatch;
use crate::error::StoreError;
use crate::machine::StateMachine;
use crate::types::TypeConfig;

type Meta = SnapshotMeta<NodeId, EmptyNode>;

const CHECKSUM: usize = 32;

fn meta() -> Meta {
    let node = NodeId::from_bytes([1; 32]);
    let last = LogId::new(CommittedLeaderId::new(3, node), 9);
    let membership = Membership::new(vec![[node].into()], None);
    Meta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: "9-abc".to_owned(),
    }
}

fn body() -> Vec<u8> {
    pack(&ClusterState::default()).unwrap()
}

fn path(directory: &Path) -> PathBuf {
    directory.join("0000000000000009-0000000000000000.snap")
}

fn open(directory: &Path) -> Result<StateMachine<TypeConfig, ClusterState>, StoreError> {
    let snapshots = Arc::new(SnapshotStore::open(directory.to_owned())?);
    StateMachine::open(snapshots, Some(9), DurableWatch::unlimited())
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path());
    let header = pack(&meta()).unwrap();
    file::write(&path, &header, &body()).unwrap();
    let sample = check("storage/snapshot.hex", &fs::read(&path).unwrap());
    fs::write(&path, sample).unwrap();
    let read = file::read(&path).unwrap();
    assert_eq!(unpack::<Meta>(&read.header).unwrap(), meta());
    assert_eq!(read.body, body());
    open(directory.path()).unwrap();
}

#[test]
fn a_snapshot_may_gain_fields() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path());
    let maps =
        ["nodes", "operators", "members", "removed", "tokens", "founders", "leftover_members"];
    let header = with_new_fields_msgpack(&pack(&meta()).unwrap(), &maps);
    let body = with_new_fields_msgpack(&body(), &maps);
    file::write(&path, &header, &body).unwrap();
    let machine = open(directory.path()).unwrap();
    assert_eq!(*machine.subscribe().borrow().as_ref(), ClusterState::default());
}

/// Turns the file into one of a later format.
fn make_newer(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(bytes.len() - CHECKSUM);
    bytes[7] = 2;
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    fs::write(path, bytes).unwrap();
}

fn assert_newer(directory: &Path) {
    let error = open(directory).unwrap_err();
    let newer = NewerFormat { found: 2, supported: 1 };
    assert!(matches!(&error, StoreError::Newer { newer: found, .. } if *found == newer), "{error}");
    assert!(!error.to_string().contains("re-initialised"), "{error}");
}

/// It was renamed to `.bad` once, and deleted with the next snapshot.
#[test]
fn a_snapshot_of_a_newer_format_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path());
    let older = directory.path().join("0000000000000009-0000000000000001.snap");
    let header = pack(&meta()).unwrap();
    for path in [&path, &older] {
        file::write(path, &header, &body()).unwrap();
    }
    make_newer(&older);
    assert_newer(directory.path());
    assert!(path.exists() && older.exists());

    // Also when a damaged one is newer still: the version that wrote them may have a use for both.
    fs::write(directory.path().join("0000000000000009-0000000000000002.snap"), b"MSTR").unwrap();
    assert_newer(directory.path());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

/// A newer version may have raised the limit.
#[test]
fn a_snapshot_above_the_limit_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path());
    let file = fs::File::create(&path).unwrap();
    file.set_len(512 << 20).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::SnapshotTooLarge { .. }), "{error}");
    assert!(path.exists());
}
