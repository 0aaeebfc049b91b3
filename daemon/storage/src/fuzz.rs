//! Fuzz targets of the Raft store's formats: stored records, and contents with a valid checksum.
//! `muster_fuzz` defines a target.

use std::fs;
use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_types::{ClusterId, NodeId, UnixMillis};
use openraft::{Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use ring::digest::{SHA256, digest};

use super::commit_mark::CommitMark;
use super::durable_index::DurableWatch;
use super::snapshot::SnapshotStore;
use super::{
    Change, Engine, KeyValue, StateMachine, StoreError, StoreIdentity, Table, codec, directory,
    envelope,
};
use crate::TypeConfig;
use muster_state::{Actor, ClusterState, Command, TimestampedCommand, command::RevokeToken};

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
    let pack = |bytes: Result<Vec<u8>, String>| bytes.expect("it is packed");
    let seeds = [
        pack(codec::pack(&Vote::new_committed(3, node(1)))),
        pack(codec::pack(&Some(log_id(7)))),
        pack(codec::pack(&meta)),
        pack(codec::pack(&7_u64)),
    ];
    target("raft_values").seeds(seeds).memory(RESERVED, 64).run(move |bytes| {
        macro_rules! reads_back {
            ($($kind:ty),*) => {
                $(if let Ok(value) = codec::unpack::<$kind>(bytes) {
                    let again = pack(codec::pack(&value));
                    assert_eq!(codec::unpack::<$kind>(&again), Ok(value));
                    return Verdict::Accepted;
                })*
            };
        }
        reads_back!(Vote<NodeId>, Option<Log>, SnapshotMeta<NodeId, openraft::EmptyNode>, u64);
        refused(codec::unpack::<Vote<NodeId>>(bytes).expect_err("it was refused before"))
    });
}

#[test]
fn sealed_record() {
    let seal = |key: &[u8], value: &[u8]| envelope::seal(Table::Meta, key, value);
    target("sealed_record").seed(seal(b"vote", b"some value")).seed(seal(b"vote", b"")).run(
        move |bytes| match envelope::unseal(Table::Meta, b"vote", bytes) {
            Ok(value) => {
                assert_eq!(seal(b"vote", value), bytes);
                assert!(envelope::unseal(Table::Log, b"vote", bytes).is_err());
                Verdict::Accepted
            }
            Err(why) => {
                assert!(why.contains("vote"), "{why}");
                refused(why)
            }
        },
    );
}

/// The file `mark`; after a `=`, only the two numbers in it.
#[test]
fn mark() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("mark");
    CommitMark::create(&path).expect("it is made");
    let seed = fs::read(&path).expect("read");
    let numbers = b"=\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08";
    target("mark").seed(seed).seed(*numbers).tries(2000).run(move |bytes| {
        let _kept = &directory;
        let slots = bytes.strip_prefix(b"=").and_then(|numbers| numbers.split_at_checked(8));
        let file = slots.map(|(one, two)| {
            let mut file = vec![0; 1024];
            for (at, number) in [(0, one), (512, two)] {
                let number: Vec<u8> = number.iter().copied().chain([0; 8]).take(8).collect();
                file[at..at + 8].copy_from_slice(&number);
                file[at + 8..at + 12].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
            }
            file
        });
        fs::write(&path, file.as_deref().unwrap_or(bytes)).expect("a small file is written");
        match CommitMark::open(path.clone()) {
            Ok((mark, last)) => {
                let next = last.saturating_add(1);
                mark.set(next).expect("it is written");
                assert_eq!(CommitMark::open(path.clone()).expect("just written").1, next);
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
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
                Err(error @ StoreError::Corrupt { .. }) => refused(error),
                Err(error) => panic!("{error}"),
            }
        },
    );
}

/// Builds a snapshot file from a header, after its length, and a body.
fn file(parts: &[u8]) -> Vec<u8> {
    let (length, rest) = parts.split_at_checked(2).unwrap_or((&[0, 0], parts));
    let length = usize::from(u16::from_be_bytes([length[0], length[1]])).min(rest.len());
    let mut file = b"MSTRSNP1".to_vec();
    file.extend(u32::try_from(length).expect("it was a u16").to_be_bytes());
    file.extend(u64::try_from(rest.len() - length).expect("usize fits u64").to_be_bytes());
    file.extend_from_slice(rest);
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    file
}

/// `store.json`: identity of the store.
#[test]
fn store_header() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let identity = StoreIdentity { node: node(1), cluster: ClusterId::from_bytes([2; 32]) };
    let open = |_: &std::path::Path| Err(StoreError::Stopped("as far as the engine".to_owned()));
    let engine = Engine { name: "none", open };
    let directory = root.path().join("raft");
    assert!(directory::open(&directory, &identity, engine).is_err(), "the engine opens nothing");
    let seed = fs::read(directory.join("store.json")).expect("it is written first");
    target("store_header").seed(seed).tries(400).run(move |bytes| {
        let _kept = &root;
        fs::write(directory.join("store.json"), bytes).expect("a small file is written");
        match directory::open(&directory, &identity, engine) {
            Err(super::OpenError::Store(StoreError::Stopped(_))) => Verdict::Accepted,
            Err(error) => refused(error),
            Ok(_) => panic!("the engine opens nothing"),
        }
    });
}
