//! Fuzz target for the reply to the first contact. See `muster_fuzz` for the meaning of a target.

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::Candidate;
use prost::Message as _;

use super::*;

/// A node's reply to the first contact.
#[test]
fn anchor() {
    let node = Some(Candidate::default());
    let not_formed = AnchorReply { node: node.clone(), ..AnchorReply::default() };
    let unfinished = AnchorReply { node, cluster_id: vec![1; 32], ..AnchorReply::default() };
    let seeds = [not_formed, unfinished].map(|reply| reply.encode_to_vec());
    target("anchor").seeds(seeds).run(|bytes| {
        let reply = match AnchorReply::decode(bytes) {
            Ok(reply) => reply,
            Err(error) => return refused(error),
        };
        match parse_reply("10.0.0.1", reply) {
            Ok(_) => Verdict::Accepted,
            Err(why) => refused(why),
        }
    });
}
