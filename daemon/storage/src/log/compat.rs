//! Encoded samples of the log's records. See `muster_compat`.

use std::collections::BTreeSet;

use muster_compat::{check, with_new_fields_msgpack};
use muster_state::{Command, TimestampedCommand};
use muster_types::format::NewerFormat;
use muster_types::{NodeId, UnixMillis};
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership, Vote};

use super::codec::{decode, encode};
use crate::codec::{DecodeError, pack_record, unpack_record};
use crate::engine::{Change, KeyValue};
use crate::types::TypeConfig;

type Entry = openraft::Entry<TypeConfig>;

/// Fields whose keys are data: Raft's nodes.
const MAPS: [&str; 1] = ["nodes"];

/// Bytes in front of an entry's MessagePack: format and number of parts.
const HEADER: usize = 3;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn log_id(index: u64) -> LogId<NodeId> {
    LogId::new(CommittedLeaderId::new(3, node(1)), index)
}

fn entries() -> Vec<(&'static str, Entry)> {
    let voters: BTreeSet<_> = [node(1), node(2), node(3)].into();
    let joint = Membership::new(vec![voters.clone(), [node(1), node(2)].into()], Some(voters));
    let now = UnixMillis::from_millis(1_700_000_000_000);
    let command = TimestampedCommand { now, command: Command::Barrier };
    vec![
        ("blank", Entry { log_id: log_id(0), payload: EntryPayload::Blank }),
        ("command", Entry { log_id: log_id(1), payload: EntryPayload::Normal(command) }),
        ("membership", Entry { log_id: log_id(2), payload: EntryPayload::Membership(joint) }),
    ]
}

/// The one record of a short entry.
fn record(entry: &Entry) -> KeyValue {
    match encode(entry).unwrap().changes.as_slice() {
        [Change::Put { key, value, .. }] => (key.clone(), value.clone()),
        _ => panic!("{entry} has more than one record"),
    }
}

#[test]
fn entries_are_read_as_they_were_written() {
    for (name, entry) in entries() {
        let (key, value) = record(&entry);
        check(&format!("storage/log-key-{}.hex", entry.log_id.index), &key);
        let value = check(&format!("storage/log-entry-{name}.hex"), &value);
        let extended = with_new_fields_msgpack(&value[HEADER..], &MAPS);
        let extended = [&value[..HEADER], &extended].concat();
        assert_ne!(extended, value);
        for value in [value, extended] {
            let read = decode::<TypeConfig>(&[(key.clone(), value)]).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(format!("{:?}", read[0].0), format!("{entry:?}"));
        }
    }
}

/// Such an entry was "corrupt" once, with the advice to give the node up.
#[test]
fn an_entry_of_a_newer_format_is_not_damage() {
    let (_, entry) = &entries()[1];
    let (key, mut value) = record(entry);
    value[0] = 2;
    let error = decode::<TypeConfig>(&[(key, value)]).unwrap_err();
    let newer = NewerFormat { found: 2, supported: 1 };
    assert_eq!(error, DecodeError::Newer { what: "log entry 1".to_owned(), newer });
}

#[test]
fn votes_and_positions_are_read_as_they_were_written() {
    for (name, vote) in
        [("granted", Vote::new(4, node(2))), ("led", Vote::new_committed(4, node(2)))]
    {
        let bytes = check(&format!("storage/vote-{name}.hex"), &pack_record(&vote).unwrap());
        for bytes in [extended(&bytes), bytes] {
            assert_eq!(unpack_record::<Vote<NodeId>>("vote", &bytes).unwrap(), vote);
        }
    }
    for (name, position) in [("some", Some(log_id(9))), ("none", None)] {
        let bytes =
            check(&format!("storage/committed-{name}.hex"), &pack_record(&position).unwrap());
        for bytes in [extended(&bytes), bytes] {
            let read: Option<LogId<NodeId>> = unpack_record("committed", &bytes).unwrap();
            assert_eq!(read, position);
        }
    }
}

#[test]
fn a_purged_position_is_read_as_it_was_written() {
    let bytes = check("storage/purged.hex", &pack_record(&log_id(9)).unwrap());
    for bytes in [extended(&bytes), bytes] {
        assert_eq!(unpack_record::<LogId<NodeId>>("purged", &bytes).unwrap(), log_id(9));
    }
}

/// A record with fields that this version does not know.
fn extended(record: &[u8]) -> Vec<u8> {
    [&record[..1], &with_new_fields_msgpack(&record[1..], &[])].concat()
}

#[test]
fn a_vote_of_a_newer_format_is_not_damage() {
    let mut bytes = pack_record(&Vote::new(4, node(2))).unwrap();
    bytes[0] = 2;
    let error = unpack_record::<Vote<NodeId>>("vote", &bytes).unwrap_err();
    let newer = NewerFormat { found: 2, supported: 1 };
    assert_eq!(error, DecodeError::Newer { what: "vote".to_owned(), newer });
    for invalid in [&[][..], &[0, 0x80]] {
        let error = unpack_record::<Vote<NodeId>>("vote", invalid).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
    }
}
