//! Fuzz target of snapshot files, and of contents with a valid checksum. `muster_fuzz` defines a
//! target.

use std::fs;
use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_state::ClusterState;
use muster_types::NodeId;
use openraft::{LogId, SnapshotMeta, StoredMembership};
use ring::digest::{SHA256, digest};

use super::store::SnapshotStore;
use crate::codec;
use crate::durable_index::DurableWatch;
use crate::error::StoreError;
use crate::machine::StateMachine;
use crate::types::TypeConfig;

/// Memory limit: serde reserves 1 MiB for a declared length, once per level of nesting.
const RESERVED: usize = 4 << 20;

fn log_id(index: u64) -> LogId<NodeId> {
    LogId::new(openraft::CommittedLeaderId::new(3, NodeId::from_bytes([1; 32])), index)
}

/// A snapshot file; after a `=`, its header and body, with correct lengths and checksum added.
#[test]
fn snapshot() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let meta: SnapshotMeta<NodeId, openraft::EmptyNode> = SnapshotMeta {
        last_log_id: Some(log_id(9)),
        last_membership: StoredMembership::default(),
        snapshot_id: "9-abc".to_owned(),
    };
    let header = codec::pack(&meta).expect("it is packed");
    let body = codec::pack(&ClusterState::default()).expect("it is packed");
    let length = u16::try_from(header.len()).expect("it is short").to_be_bytes();
    let parts = [&length[..], &header, &body].concat();
    let seeds = [file(&parts), [b"=", &parts[..]].concat()];
    target("snapshot").seeds(seeds).longest(16 << 10).memory(RESERVED, 64).tries(2000).run(
        move |bytes| {
            let built = bytes.strip_prefix(b"=").map(file);
            let path = directory.path().join("0000000000000009-0000000000000000.snap");
            fs::write(&path, built.as_deref().unwrap_or(bytes)).expect("a small file is written");
            let snapshots = SnapshotStore::open(directory.path().to_owned()).expect("it is there");
            match StateMachine::<TypeConfig, ClusterState>::open(
                Arc::new(snapshots),
                None,
                DurableWatch::unlimited(),
            ) {
                Ok(machine) => {
                    let state = machine.subscribe().borrow().clone();
                    let packed = codec::pack(&*state).expect("it was read");
                    assert_eq!(codec::unpack::<ClusterState>(&packed).as_ref(), Ok(&*state));
                    Verdict::Accepted
                }
                Err(error @ (StoreError::Corrupt { .. } | StoreError::Newer { .. })) => {
                    refused(error)
                }
                Err(error) => panic!("{error}"),
            }
        },
    );
}

/// Builds a snapshot file from a header, after its length, and a body.
fn file(parts: &[u8]) -> Vec<u8> {
    let (length, rest) = parts.split_at_checked(2).unwrap_or((&[0, 0], parts));
    let length = usize::from(u16::from_be_bytes([length[0], length[1]])).min(rest.len());
    let mut file = b"MSTRSNP\x01".to_vec();
    file.extend(u32::try_from(length).expect("it was a u16").to_be_bytes());
    file.extend(u64::try_from(rest.len() - length).expect("usize fits u64").to_be_bytes());
    file.extend_from_slice(rest);
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    file
}
