//! Fuzz target for requests and replies of the node API, and the values encoded inside them. See
//! `muster_fuzz`.

use muster_fuzz::{Verdict, refused, target};
use muster_messages::node::{
    ForwardRequest, ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply, ReportRequest,
    SnapshotChunk,
};
use muster_types::NodeId;
use openraft::Vote;
use prost::Message as _;

use crate::raft::SnapshotHeader;
use crate::raft::codec::{decode, encode};
use muster_state::{Command, EtcdReport, Outcome};

/// Memory bound. serde reserves 1 MiB for a declared length, once for each level of nesting.
const RESERVED: usize = 4 << 20;

/// Prefixes a message with the number of its kind.
fn kind(number: u8, body: Vec<u8>) -> Vec<u8> {
    [vec![number], body].concat()
}

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
                drop(decode::<SnapshotHeader>(&piece.header, "header"));
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
                let known = muster_messages::OperatorMethod::ALL
                    .iter()
                    .any(|call| call.as_str() == forward.method);
                assert!(!known || forward.method.starts_with("/muster.operator.v1.Operator/"));
            }),
            5 => read!(ProposeReply, |_reply| ()),
            _ => read!(ReadIndexReply, |_reply| ()),
        }
    });
}
