//! Fuzz targets for the messages and files of other members that a node reads. See `muster_fuzz`.

use std::collections::BTreeSet;
use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{Admitted, Credentials, Peer};
use muster_messages::node::{
    ForwardRequest, ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply, ReportRequest,
    SnapshotChunk, View,
};
use muster_types::{ClusterId, NodeId, Role};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    CommittedLeaderId, EmptyNode, Entry, EntryPayload, LogId, Membership as Voters, SnapshotMeta,
    StoredMembership, Vote,
};
use prost::Message as _;

use crate::convert;
use crate::membership::{Membership, seal};
use crate::raft::TypeConfig;
use crate::raft::codec::{decode, encode};
use muster_state::{Command, EtcdReport, Outcome};

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

/// Messages between Raft members, in MessagePack.
#[test]
fn raft_message() {
    let last = LogId::new(CommittedLeaderId::new(3, node(1)), 9);
    let voters: BTreeSet<_> = [node(1), node(2), node(3)].into();
    let members = EntryPayload::Membership(Voters::new(vec![voters], None));
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
        kind(2, encode(&(&vote, &meta))),
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
            2 => reads_back!((Vote<NodeId>, Meta)),
            3 => reads_back!(Answer<AppendEntriesResponse<NodeId>>),
            4 => reads_back!(Answer<VoteResponse<NodeId>>),
            _ => reads_back!(Answer<SnapshotResponse<NodeId>, Fatal<NodeId>>),
        }
    });
}

/// Requests and replies of the node API, and the values encoded inside them.
#[test]
fn node_request() {
    let forward = ForwardRequest {
        method: "/muster.operator.v1.Operator/EtcdDefrag".to_owned(),
        request: vec![8, 1],
        operator: vec![1; 32],
    };
    let seeds = [
        kind(0, RaftMessage { body: vec![1, 2] }.encode_to_vec()),
        kind(1, SnapshotChunk { header: vec![1], body: vec![2] }.encode_to_vec()),
        kind(2, ProposeRequest { command: encode(&Outcome::Done) }.encode_to_vec()),
        kind(3, ReportRequest::default().encode_to_vec()),
        kind(4, forward.encode_to_vec()),
        kind(5, ProposeReply::default().encode_to_vec()),
    ];
    target("node_request").seeds(seeds).memory(RESERVED, 64).run(|bytes| {
        let Some((kind, body)) = bytes.split_first() else { return refused("empty input") };
        macro_rules! read {
            ($kind:ty, |$message:ident| $look:expr) => {
                match <$kind>::decode(body) {
                    Ok($message) => {
                        assert_eq!(
                            <$kind>::decode(&*$message.encode_to_vec()),
                            Ok($message.clone())
                        );
                        let () = $look;
                        Verdict::Accepted
                    }
                    Err(error) => refused(error),
                }
            };
        }
        match kind % 7 {
            0 => read!(RaftMessage, |message| drop(decode::<Vote<NodeId>>(&message.body, "vote"))),
            1 => read!(SnapshotChunk, |piece| {
                drop(decode::<(Vote<NodeId>, Meta)>(&piece.header, "header"));
            }),
            2 => read!(ProposeRequest, |propose| {
                drop(decode::<Command>(&propose.command, "command"));
                drop(decode::<Outcome>(&propose.command, "outcome"));
            }),
            3 => read!(ReportRequest, |report| {
                drop(decode::<EtcdReport>(&report.etcd, "etcd report"));
                assert!(muster_types::address::parse_addresses(&report.addresses).len() <= 16);
            }),
            4 => read!(ForwardRequest, |forward| {
                let known = muster_state::permissions::Call::ALL
                    .iter()
                    .any(|call| call.as_str() == forward.method);
                assert!(!known || forward.method.starts_with("/muster.operator.v1.Operator/"));
            }),
            5 => read!(ProposeReply, |_reply| ()),
            _ => read!(ReadIndexReply, |_reply| ()),
        }
    });
}

fn peer(number: u8) -> Peer {
    Peer {
        public_key: vec![number; 32],
        name: format!("cp-{number}"),
        role: "control-plane".to_owned(),
        addresses: vec!["192.0.2.1:50000".to_owned()],
    }
}

/// The cluster view that a worker receives: bad entries are skipped, good ones stay.
#[test]
fn view() {
    let view = View {
        index: 7,
        cluster_id: vec![9; 32],
        cluster_name: "demo".to_owned(),
        members: vec![peer(1), peer(2)],
        machine_authorities: vec![vec![0x30, 0]],
        config_version: 1,
        removed: vec![vec![3; 32]],
        token_ids: vec!["abcdefghij".to_owned()],
    };
    target("view").seed(view.encode_to_vec()).memory(256 << 10, 128).run(|bytes| {
        let view = match View::decode(bytes) {
            Ok(view) => view,
            Err(error) => return refused(error),
        };
        let directory = convert::directory(&view.members);
        assert!(directory.len() <= view.members.len());
        for (id, peer) in &directory {
            assert_eq!(*id, muster_pki::identity::node_id(&peer.public_key));
            assert!(peer.addresses.len() <= 16, "{peer:?}");
        }
        assert_eq!(convert::directory(&convert::peers(&directory)), directory);
        Verdict::Accepted
    });
}

/// The reply to a join, and the file `membership.json` made from it.
#[test]
fn admitted() {
    let answer = Admitted {
        cluster_id: vec![9; 32],
        cluster_name: "demo".to_owned(),
        credentials: Some(Credentials {
            certificate_chain: vec![vec![0x30, 0]],
            machine_authorities: vec![vec![0x30, 0]],
        }),
        peers: vec![peer(1), peer(2)],
    };
    target("admitted").seed(answer.encode_to_vec()).memory(256 << 10, 128).run(|bytes| {
        let answer = match Admitted::decode(bytes) {
            Ok(answer) => answer,
            Err(error) => return refused(error),
        };
        match Membership::from_admission(&answer, Role::Worker) {
            Ok(membership) => {
                let text = serde_json::to_vec(&membership).expect("plain data with text keys");
                let again: Membership = serde_json::from_slice(&text).expect("just written");
                assert_eq!(again, membership);
                assert_eq!(membership.cluster_id.to_vec(), answer.cluster_id);
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}

#[test]
fn membership_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("membership.json");
    let mut membership = Membership::from_admission(
        &Admitted {
            cluster_id: ClusterId::from_bytes([9; 32]).to_vec(),
            cluster_name: "demo".to_owned(),
            credentials: Some(Credentials {
                certificate_chain: vec![vec![0x30, 0]],
                machine_authorities: vec![vec![0x30, 0]],
            }),
            peers: Vec::new(),
        },
        Role::ControlPlane,
    )
    .expect("a well-formed reply");
    membership.set_peers(&convert::directory(&[peer(1), peer(2)]));
    let seed = serde_json::to_vec(&membership).expect("plain data");
    target("membership_file").seed(seed).memory(RESERVED, 64).tries(2000).run(move |bytes| {
        let _kept = &directory;
        // Adds the right checksum, so that the parser behind it is fuzzed as well.
        let file = if bytes.starts_with(b"{\"") && !bytes.starts_with(b"{\"sha256") {
            seal(bytes)
        } else {
            bytes.to_vec()
        };
        fs::write(&path, file).expect("a small file can be written");
        match Membership::load(&path) {
            Err(error) => refused(muster_types::error::chain(&error)),
            Ok(None) => panic!("the file is there"),
            Ok(Some(membership)) => {
                membership.directory();
                membership.certificate();
                membership.save(&path).expect("a small file can be written");
                assert_eq!(Membership::load(&path).expect("just written"), Some(membership));
                Verdict::Accepted
            }
        }
    });
}
