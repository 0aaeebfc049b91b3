//! Encoded samples of the messages between Raft members. See `muster_compat`. openraft defines most
//! of these types, so a new version of it that encodes them otherwise is found here.

use std::collections::BTreeSet;

use muster_compat::{check, with_new_fields_msgpack};
use muster_state::{Command, TimestampedCommand};
use muster_types::{NodeId, UnixMillis};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::TypeConfig;
use super::{SnapshotHeader, decode, encode};

/// Fields whose keys are data: Raft's nodes.
const MAPS: [&str; 1] = ["nodes"];

/// Not all of openraft's types implement `PartialEq`, so what was read is compared as bytes.
fn guarded<T: Serialize + DeserializeOwned>(name: &str, value: &T) {
    let bytes = check(&format!("raft/{name}.hex"), &encode(value));
    let read: T = decode(&bytes, "sample").unwrap();
    assert_eq!(encode(&read), bytes, "{name}");
    let extended = with_new_fields_msgpack(&bytes, &MAPS);
    let read: T = decode(&extended, "sample").unwrap();
    assert_eq!(encode(&read), bytes, "{name} with new fields");
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

#[test]
fn requests_are_read_as_they_were_written() {
    let last = LogId::new(CommittedLeaderId::new(3, node(1)), 9);
    let voters: BTreeSet<_> = [node(1), node(2), node(3)].into();
    let members = EntryPayload::Membership(Membership::new(vec![voters.clone()], None));
    let now = UnixMillis::from_millis(1_700_000_000_000);
    let command = TimestampedCommand { now, command: Command::Barrier };
    let entries = vec![
        Entry { log_id: last, payload: EntryPayload::Blank },
        Entry { log_id: last, payload: members },
        Entry { log_id: last, payload: EntryPayload::Normal(command) },
    ];
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(3, node(1)),
        prev_log_id: Some(last),
        entries,
        leader_commit: Some(last),
    };
    guarded("append", &append);
    guarded("vote-request", &VoteRequest::new(Vote::new(4, node(2)), Some(last)));
    let membership = Membership::new(vec![voters], None);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: "9-abc".to_owned(),
    };
    guarded("snapshot-header", &SnapshotHeader { vote: Vote::new(4, node(2)), meta });
}

#[test]
fn answers_are_read_as_they_were_written() {
    type Answer<T, E = RaftError<NodeId>> = Result<T, E>;
    let vote = Vote::new(4, node(2));
    let last = LogId::new(CommittedLeaderId::new(3, node(1)), 9);
    for (name, response) in [
        ("higher-vote", AppendEntriesResponse::HigherVote(vote)),
        ("partial", AppendEntriesResponse::PartialSuccess(Some(last))),
        ("success", AppendEntriesResponse::Success),
        ("conflict", AppendEntriesResponse::Conflict),
    ] {
        let append: Answer<AppendEntriesResponse<NodeId>> = Ok(response);
        guarded(&format!("append-answer-{name}"), &append);
    }
    let voted: Answer<VoteResponse<NodeId>> = Ok(VoteResponse::new(vote, Some(last), true));
    guarded("vote-answer", &voted);
    let installed: Answer<_, Fatal<NodeId>> = Ok(SnapshotResponse::new(vote));
    guarded("snapshot-answer", &installed);
    let stopped: Answer<SnapshotResponse<NodeId>, Fatal<NodeId>> = Err(Fatal::Stopped);
    let bytes = check("raft/snapshot-failure.hex", &encode(&stopped));
    let read: Answer<SnapshotResponse<NodeId>, Fatal<NodeId>> = decode(&bytes, "sample").unwrap();
    assert_eq!(read.unwrap_err(), Fatal::Stopped);
}
