//! Fuzz target for the messages between Raft members. See `muster_fuzz`.

use std::collections::BTreeSet;

use muster_fuzz::{Verdict, refused, target};
use muster_types::NodeId;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    CommittedLeaderId, EmptyNode, Entry, EntryPayload, LogId, Membership, SnapshotMeta,
    StoredMembership, Vote,
};

use super::super::TypeConfig;
use super::{SnapshotHeader, decode, encode};

/// Memory bound. serde reserves 1 MiB for a declared length, once for each level of nesting.
const RESERVED: usize = 4 << 20;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

/// Prefixes a message with the number of its kind.
fn kind(number: u8, body: Vec<u8>) -> Vec<u8> {
    [vec![number], body].concat()
}

type Meta = SnapshotMeta<NodeId, EmptyNode>;
type Answer<T, E = RaftError<NodeId>> = Result<T, E>;

#[test]
fn raft_message() {
    let last = LogId::new(CommittedLeaderId::new(3, node(1)), 9);
    let voters: BTreeSet<_> = [node(1), node(2), node(3)].into();
    let members = EntryPayload::Membership(Membership::new(vec![voters], None));
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(3, node(1)),
        prev_log_id: Some(last),
        entries: vec![
            Entry { log_id: last, payload: EntryPayload::Blank },
            Entry { log_id: last, payload: members },
        ],
        leader_commit: Some(last),
    };
    let meta = Meta {
        last_log_id: Some(last),
        last_membership: StoredMembership::default(),
        snapshot_id: "9-abc".to_owned(),
    };
    let vote = Vote::new(4, node(2));
    let taken: Answer<AppendEntriesResponse<NodeId>> = Ok(AppendEntriesResponse::Success);
    let installed: Answer<SnapshotResponse<NodeId>, Fatal<NodeId>> =
        Ok(SnapshotResponse::new(vote));
    let seeds = [
        kind(0, encode(&append)),
        kind(1, encode(&VoteRequest::new(vote, Some(last)))),
        kind(2, encode(&SnapshotHeader { vote, meta })),
        kind(3, encode(&taken)),
        kind(4, encode(&Answer::<VoteResponse<NodeId>>::Ok(VoteResponse::new(vote, None, true)))),
        kind(5, encode(&installed)),
    ];
    target("raft_message").seeds(seeds).memory(RESERVED, 64).run(|bytes| {
        let Some((kind, body)) = bytes.split_first() else { return refused("empty input") };
        macro_rules! reads_back {
            ($kind:ty) => {
                match decode::<$kind>(body, "message") {
                    Ok(value) => {
                        // Not all of openraft's types implement `PartialEq`, so compare bytes.
                        let once = encode(&value);
                        let again: $kind = decode(&once, "message").expect("just encoded");
                        assert_eq!(encode(&again), once);
                        Verdict::Accepted
                    }
                    Err(status) => refused(status.message()),
                }
            };
        }
        match kind % 6 {
            0 => reads_back!(AppendEntriesRequest<TypeConfig>),
            1 => reads_back!(VoteRequest<NodeId>),
            2 => reads_back!(SnapshotHeader),
            3 => reads_back!(Answer<AppendEntriesResponse<NodeId>>),
            4 => reads_back!(Answer<VoteResponse<NodeId>>),
            _ => reads_back!(Answer<SnapshotResponse<NodeId>, Fatal<NodeId>>),
        }
    });
}
