//! Fuzz targets of this crate's parsers; `muster_fuzz` defines a target.

use std::fs;
use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{
    BirthCertificate, BirthMessage, BirthRequest, Candidate as WireCandidate, GreetRequest, Hint,
    JoinRequest, ProveRequest,
};
use muster_pki::identity::Identity;
use muster_pki::token::TokenId;
use muster_transport::hello::bounds;
use muster_types::PublicKey;
use muster_types::wire::MAX_HELLO_MESSAGE;
use prost::Message as _;
use ring::digest::{SHA256, digest};

use crate::birth::proposal::{Draft, Founder, MAX_ADDRESSES, MAX_FOUNDERS, Proposal};
use crate::birth::wire::{from_wire, to_wire};
use crate::birth::{
    Ballot, BirthRecord, Certificate, Commitment, Decision as Vote, Message, Promise, PromiseStore,
    Signer as _,
};
use crate::candidate::Candidate;

/// Returns the same identity in every run.
fn identity(number: u8) -> Identity {
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    Identity::from_pkcs8(&[&head[..], &[number; 32]].concat()).expect("any seed is a key")
}

fn founders(count: u8) -> Vec<Identity> {
    let mut founders: Vec<_> = (1..=count).map(identity).collect();
    founders.sort_by_key(Identity::node_id);
    founders
}

fn proposal(founders: &[Identity]) -> Arc<Proposal> {
    let founder = |(n, identity): (usize, &Identity)| Founder {
        public_key: identity.public_key(),
        name: format!("cp-{n}").parse().expect("a node name"),
        addresses: vec![format!("192.0.2.{n}:50000").parse().expect("an address")],
        epoch: n as u64,
    };
    let draft = Draft {
        token_id: "abcdefghij".to_owned(),
        founders: founders.iter().enumerate().map(founder).collect(),
        nonce: [7; 32],
        config_digest: [8; 32],
        proposer: founders[0].node_id(),
    };
    Arc::new(Proposal::new(draft).expect("it is well-formed"))
}

fn certificate(founders: &[Identity]) -> Arc<Certificate> {
    let proposal = proposal(founders);
    let id = proposal.id();
    let signed = founders.iter().map(|founder| (founder.node_id(), founder.sign_promise(&id)));
    Arc::new(Certificate::new(Arc::clone(&proposal), signed.collect()))
}

/// Prefixes a message with the number of its kind.
fn kind(number: u8, message: &impl prost::Message) -> Vec<u8> {
    [vec![number], message.encode_to_vec()].concat()
}

/// Messages of unauthenticated peers in the form that gRPC delivers: decoded, bounded and parsed.
#[test]
fn hello() {
    let me = WireCandidate {
        name: "cp-1".to_owned(),
        role: "control-plane".to_owned(),
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
                    if let Err(status) = bounds::greet(&request) {
                        return refused(status.message());
                    }
                    assert!(request.peers.len() <= 64);
                    candidate(key, request.candidate)
                }
            },
            1 => match JoinRequest::decode(body) {
                Err(error) => refused(error),
                Ok(request) => match bounds::join(&request) {
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
            if let Err(status) = bounds::join(&join) {
                panic!("our encoding of a candidate is rejected: {}", status.message());
            }
            let again = Candidate::from_wire(key, Some(said)).expect("it was a candidate before");
            assert_eq!(again, candidate);
            Verdict::Accepted
        }
    }
}

#[test]
fn birth_message() {
    let founders = founders(3);
    let (proposal, certificate) = (proposal(&founders), certificate(&founders));
    let id = proposal.id();
    let ballot = Ballot { round: 3, by: founders[1].node_id() };
    let born = Vote::Born(Arc::clone(&certificate));
    let signature = founders[0].sign_promise(&id);
    let messages = [
        Message::Propose(Arc::clone(&proposal)),
        Message::Promise { proposal: id, signature },
        Message::Refuse { proposal: id, reason: "later".to_owned() },
        Message::Inquire { proposal: Arc::clone(&proposal), ballot },
        Message::InquiryReply { proposal: id, ballot, vote: Some((ballot, born.clone())) },
        Message::Settle { proposal: Arc::clone(&proposal), ballot, decision: born },
        Message::Settle { proposal, ballot, decision: Vote::Abandoned },
        Message::Vote { proposal: id, ballot },
        Message::Born(certificate),
        Message::Abandoned(id),
    ];
    let seeds = messages.map(|message| to_wire(&message).encode_to_vec());
    let from = founders[0].public_key();
    target("birth_message").seeds(seeds).longest(8 << 10).run(move |bytes| {
        // The request is an envelope of one field; the message inside is the target.
        drop(BirthRequest::decode(bytes));
        let message = match BirthMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => return refused(error),
        };
        match from_wire(&from, message) {
            Err(error) => refused(error),
            Ok(message) => {
                if let Message::Propose(proposal) = &message {
                    sound(proposal);
                }
                assert_eq!(from_wire(&from, to_wire(&message)), Ok(message));
                Verdict::Accepted
            }
        }
    });
}

fn sound(proposal: &Proposal) {
    let founders = proposal.founders();
    assert!((1..=MAX_FOUNDERS).contains(&founders.len()));
    assert!(founders.iter().all(|founder| founder.addresses.len() <= MAX_ADDRESSES));
    assert!(proposal.founder(&proposal.proposer()).is_some());
    assert!(proposal.ids().is_sorted_by(|a, b| a < b));
}

/// Certificate in its format for the Raft log and for joining nodes.
#[test]
fn birth_certificate() {
    let wire = |count| BirthCertificate::from(&*certificate(&founders(count))).encode_to_vec();
    target("birth_certificate").seeds([1, 3, 9].map(wire)).longest(8 << 10).run(|bytes| {
        let wire = match BirthCertificate::decode(bytes) {
            Ok(wire) => wire,
            Err(error) => return refused(error),
        };
        match Certificate::try_from(wire) {
            Err(error) => refused(error),
            Ok(certificate) => {
                certificate.verify().expect("an accepted certificate is signed by all");
                sound(certificate.proposal());
                let again = Certificate::try_from(BirthCertificate::from(&certificate));
                assert_eq!(again, Ok(certificate));
                Verdict::Accepted
            }
        }
    });
}

/// The file `birth`: raw, and with a correct checksum.
#[test]
fn birth_record() {
    let founders = founders(3);
    let (proposal, certificate) = (proposal(&founders), certificate(&founders));
    let (node, ballot) = (founders[0].node_id(), Ballot { round: 2, by: founders[1].node_id() });
    let vote = Some((ballot, Vote::Born(Arc::clone(&certificate))));
    let commitments = [
        Commitment::None,
        Commitment::Promised(Promise { proposal, ballot, vote }),
        Commitment::Born(certificate),
        Commitment::Joined(muster_types::ClusterId::from_bytes([4; 32])),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("birth");
    let store = PromiseStore::create(directory.path(), node).expect("a record is made");
    let files = commitments.map(|commitment| store.encode(&BirthRecord { epoch: 3, commitment }));
    let behind = files.clone().map(|file| [b"=", &file[8..file.len() - 32]].concat());
    let [whole, ..] = files;
    target("birth_record").seed(whole).seeds(behind).longest(8 << 10).run(move |bytes| {
        let _kept = &directory;
        let sealed = bytes.strip_prefix(b"=").map(sealed);
        fs::write(&path, sealed.as_deref().unwrap_or(bytes)).expect("a small file is written");
        match store.read() {
            Err(error) => {
                assert!(error.to_string().contains("birth record"), "{error}");
                refused(error)
            }
            Ok(record) => {
                fs::write(&path, store.encode(&record)).expect("a small file is written");
                assert_eq!(store.read().expect("just written"), record);
                Verdict::Accepted
            }
        }
    });
}

/// Returns a record file with this content and its checksum.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut file = b"MBIRTH\0\x01".to_vec();
    file.extend_from_slice(body);
    let sum = digest(&SHA256, &file);
    file.extend_from_slice(sum.as_ref());
    file
}
