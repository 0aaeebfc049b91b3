//! Fuzz targets of the birth protocol's messages; `muster_fuzz` defines a target.

use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{BirthCertificate, BirthMessage, BirthRequest};
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS};
use prost::Message as _;

use super::{from_wire, to_wire};
use crate::birth::testing::{certificate, fixed_founders, proposal};
use crate::birth::{Ballot, Certificate, Decision, Message, Proposal, Signer as _, Vote};

#[test]
fn birth_message() {
    let founders = fixed_founders(3);
    let proposal = Arc::new(proposal(&founders));
    let certificate = Arc::new(certificate(&founders));
    let id = proposal.id();
    let ballot = Ballot { round: 3, by: founders[1].node_id() };
    let born = Decision::Born(Arc::clone(&certificate));
    let signature = founders[0].sign_promise(&id);
    let messages = [
        Message::Propose(Arc::clone(&proposal)),
        Message::Promise { proposal: id, signature },
        Message::Refuse { proposal: id, reason: "later".to_owned() },
        Message::Inquire { proposal: Arc::clone(&proposal), ballot },
        Message::InquiryReply {
            proposal: id,
            ballot,
            vote: Some(Vote { ballot, decision: born.clone() }),
        },
        Message::Settle { proposal: Arc::clone(&proposal), ballot, decision: born },
        Message::Settle { proposal, ballot, decision: Decision::Abandoned },
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
    let wire = |count| BirthCertificate::from(&certificate(&fixed_founders(count))).encode_to_vec();
    target("birth_certificate").seeds([1, 3, 7].map(wire)).longest(8 << 10).run(|bytes| {
        let wire = match BirthCertificate::decode(bytes) {
            Ok(wire) => wire,
            Err(error) => return refused(error),
        };
        let proposal = wire.proposal.clone();
        match Certificate::try_from(wire) {
            Err(error) => refused(error),
            Ok(certificate) => {
                assert_eq!(certificate.proposal().bytes(), proposal, "the signed bytes are kept");
                certificate.verify().expect("an accepted certificate is signed by all");
                sound(certificate.proposal());
                let again = Certificate::try_from(BirthCertificate::from(&certificate));
                assert_eq!(again, Ok(certificate));
                Verdict::Accepted
            }
        }
    });
}
