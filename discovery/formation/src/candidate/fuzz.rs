//! Fuzz target of greetings and join requests; `muster_fuzz` defines a target.

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{
    Candidate as WireCandidate, GreetRequest, Hint, JoinRequest, ProveRequest,
};
use muster_pki::token::TokenId;
use muster_transport::hello::validate;
use muster_types::PublicKey;
use muster_types::wire::MAX_HELLO_MESSAGE;
use prost::Message as _;

use super::Candidate;

/// Prefixes a message with the number of its kind.
fn kind(number: u8, message: &impl prost::Message) -> Vec<u8> {
    [vec![number], message.encode_to_vec()].concat()
}

/// Messages of unauthenticated peers in the form that gRPC delivers: decoded, bounded and parsed.
#[test]
fn hello() {
    let me = WireCandidate {
        name: "cp-1".to_owned(),
        role: muster_messages::hello::NodeRole::ControlPlane.into(),
        addresses: vec!["192.0.2.1:50000".to_owned(), "[fd00::1]:50000".to_owned()],
        version: "0.1.0".to_owned(),
        birth_fields: [("cluster.expect".to_owned(), "3".to_owned())].into(),
        state: 1,
        cluster_id: Vec::new(),
        waiting_for: "2 more nodes".to_owned(),
        epoch: 1,
    };
    let peer = Hint {
        node_id: vec![1; 32],
        addresses: vec!["192.0.2.2:50000".to_owned()],
        reachable: true,
    };
    let prove = ProveRequest { token_id: "abcdefghij".to_owned(), proof: vec![1; 32] };
    let seeds = [
        kind(0, &GreetRequest { candidate: Some(me.clone()), peers: vec![peer] }),
        kind(1, &JoinRequest { candidate: Some(me) }),
        kind(2, &prove),
    ];
    let key = PublicKey::from_bytes([1; 32]);
    target("hello").seeds(seeds).longest(8 << 10).memory(256 << 10, 128).run(move |bytes| {
        let Some((kind, body)) = bytes.split_first() else { return refused("empty input") };
        assert!(body.len() <= MAX_HELLO_MESSAGE);
        match kind {
            0 => match GreetRequest::decode(body) {
                Err(error) => refused(error),
                Ok(request) => {
                    if let Err(status) = validate::greet(&request) {
                        return refused(status.message());
                    }
                    assert!(request.peers.len() <= 64);
                    candidate(key, request.candidate)
                }
            },
            1 => match JoinRequest::decode(body) {
                Err(error) => refused(error),
                Ok(request) => match validate::join(&request) {
                    Err(status) => refused(status.message()),
                    Ok(()) => candidate(key, request.candidate),
                },
            },
            _ => match ProveRequest::decode(body) {
                Err(error) => refused(error),
                Ok(request) => match request.token_id.parse::<TokenId>() {
                    Ok(_) => Verdict::Accepted,
                    Err(error) => refused(error),
                },
            },
        }
    });
}

/// Checks that a message within the bounds is a candidate or is rejected with a reason. The same
/// candidate, encoded by us, must pass the bounds again with the same meaning.
fn candidate(key: PublicKey, wire: Option<WireCandidate>) -> Verdict {
    match Candidate::from_wire(key, wire) {
        Err(error) => refused(error),
        Ok(candidate) => {
            let said = candidate.to_wire("nothing".to_owned());
            let join = JoinRequest { candidate: Some(said.clone()) };
            if let Err(status) = validate::join(&join) {
                panic!("our encoding of a candidate is rejected: {}", status.message());
            }
            let again = Candidate::from_wire(key, Some(said)).expect("it was a candidate before");
            assert_eq!(again, candidate);
            Verdict::Accepted
        }
    }
}
