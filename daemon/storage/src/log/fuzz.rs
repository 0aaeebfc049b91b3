//! Fuzz targets of the log: stored records and single values. `muster_fuzz` defines a target.

use muster_fuzz::{Verdict, refused, target};
use muster_state::{Actor, Command, TimestampedCommand, command::RevokeToken};
use muster_types::{NodeId, UnixMillis};
use openraft::{Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote};

use super::codec;
use crate::codec::{pack, unpack};
use crate::engine::{Change, KeyValue};
use crate::types::TypeConfig;

type Log = LogId<NodeId>;

/// Memory limit: serde reserves 1 MiB for a declared length, once per level of nesting.
const RESERVED: usize = 4 << 20;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn log_id(index: u64) -> Log {
    LogId::new(openraft::CommittedLeaderId::new(3, node(1)), index)
}

fn entry(index: u64, payload: EntryPayload<TypeConfig>) -> Entry<TypeConfig> {
    Entry { log_id: log_id(index), payload }
}

fn entries() -> Vec<Entry<TypeConfig>> {
    let voters = [node(1), node(2), node(3)].into_iter().collect();
    let token = "abcdefghij".parse().expect("a token id");
    let command = Command::RevokeToken(RevokeToken { token, by: Actor::Cluster });
    vec![
        entry(5, EntryPayload::Blank),
        entry(6, EntryPayload::Membership(Membership::new(vec![voters], None))),
        entry(
            7,
            EntryPayload::Normal(TimestampedCommand { now: UnixMillis::from_millis(1), command }),
        ),
    ]
}

/// Encodes records as one input: key and value, each after its length (one byte and two).
fn written(pairs: &[KeyValue]) -> Vec<u8> {
    let mut input = Vec::new();
    for (key, value) in pairs {
        input.push(u8::try_from(key.len()).expect("a short key"));
        input.extend_from_slice(key);
        input.extend(u16::try_from(value.len()).expect("a value").to_be_bytes());
        input.extend_from_slice(value);
    }
    input
}

fn pairs(mut input: &[u8]) -> Vec<KeyValue> {
    let mut pairs = Vec::new();
    while let Some((length, rest)) = input.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        let (length, rest) = rest.split_at_checked(2).unwrap_or((&[0, 0], &[]));
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (value, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        pairs.push((key.to_vec(), value.to_vec()));
        input = rest;
    }
    pairs
}

fn records(entries: &[Entry<TypeConfig>]) -> Vec<KeyValue> {
    let put = |change| match change {
        Change::Put { key, value, .. } => (key, value),
        Change::Delete { .. } => panic!("an entry is only put"),
    };
    let encode = |entry| codec::encode(entry).expect("it is short").changes;
    entries.iter().flat_map(encode).map(put).collect()
}

#[test]
fn log_entries() {
    let one = entries().into_iter().map(|entry| written(&records(&[entry])));
    target("log_entries").seeds(one).seed(written(&records(&entries()))).memory(RESERVED, 64).run(
        |bytes| {
            let found = match codec::decode::<TypeConfig>(&pairs(bytes)) {
                Ok(found) => found,
                Err(why) => return refused(why),
            };
            if found.is_empty() {
                return refused("no records");
            }
            let found: Vec<_> = found.into_iter().map(|(entry, _)| entry).collect();
            let again = codec::decode::<TypeConfig>(&records(&found)).expect("just encoded");
            assert!(again.into_iter().map(|(entry, _)| entry).eq(found), "it reads back otherwise");
            Verdict::Accepted
        },
    );
}

/// Single values: vote, log ids, the header of a snapshot.
#[test]
fn raft_values() {
    let meta: SnapshotMeta<NodeId, openraft::EmptyNode> = SnapshotMeta {
        last_log_id: Some(log_id(9)),
        last_membership: StoredMembership::default(),
        snapshot_id: "9-abc".to_owned(),
    };
    let packed = |bytes: Result<Vec<u8>, String>| bytes.expect("it is packed");
    let seeds = [
        packed(pack(&Vote::new_committed(3, node(1)))),
        packed(pack(&Some(log_id(7)))),
        packed(pack(&meta)),
        packed(pack(&7_u64)),
    ];
    target("raft_values").seeds(seeds).memory(RESERVED, 64).run(move |bytes| {
        macro_rules! reads_back {
            ($($kind:ty),*) => {
                $(if let Ok(value) = unpack::<$kind>(bytes) {
                    let again = packed(pack(&value));
                    assert_eq!(unpack::<$kind>(&again), Ok(value));
                    return Verdict::Accepted;
                })*
            };
        }
        reads_back!(Vote<NodeId>, Option<Log>, SnapshotMeta<NodeId, openraft::EmptyNode>, u64);
        refused(unpack::<Vote<NodeId>>(bytes).expect_err("it was refused before"))
    });
}
