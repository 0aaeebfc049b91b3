//! Encoding of birth messages. Input is bounded and parsed strictly, and its signatures are
//! checked, so that the protocol sees only valid ones. Unknown fields are ignored; those of a
//! proposal are kept in its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_messages::hello;
use muster_messages::hello::birth_message::Kind;
use muster_messages::hello::decision::Value;
use muster_types::limits::{MAX_FOUNDERS, MAX_REASON};
use muster_types::text::sanitize;
use muster_types::{NodeId, PublicKey};

use super::certificate::{Certificate, CertificateError, Signature};
use super::draft::ProposalError;
use super::message::Message;
use super::proposal::{Proposal, ProposalId};
use super::record::{Ballot, Decision, Vote};

/// Reasons why a birth message is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("birth message lacks {0}")]
    Missing(&'static str),
    #[error("birth message: {what} has {found} bytes, expected {expected}")]
    Length { what: &'static str, expected: usize, found: usize },
    #[error("birth message: {what} has {found} bytes, at most {limit} are allowed")]
    TooLong { what: &'static str, limit: usize, found: usize },
    #[error("birth message has too many {0}")]
    TooMany(&'static str),
    #[error("birth message holds an invalid proposal: {0}")]
    Proposal(#[from] ProposalError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("promise is not signed by its sender")]
    Promise,
    #[error("birth message refers to two proposals")]
    ProposalMismatch,
}

/// Encodes a message for a request or a reply.
pub fn to_wire(message: &Message) -> hello::BirthMessage {
    let id = |id: &ProposalId| id.as_bytes().to_vec();
    let kind = match message {
        Message::Propose(proposal) => {
            Kind::Propose(hello::Propose { proposal: proposal.bytes().to_vec() })
        }
        Message::Promise { proposal, signature } => Kind::Promise(hello::Promise {
            proposal_id: id(proposal),
            signature: signature.as_bytes().to_vec(),
        }),
        Message::Refuse { proposal, reason } => {
            Kind::Refuse(hello::Refuse { proposal_id: id(proposal), reason: reason.clone() })
        }
        Message::Inquire { proposal, ballot } => Kind::Inquire(hello::Inquire {
            proposal: proposal.bytes().to_vec(),
            ballot: Some(ballot_out(ballot)),
        }),
        Message::InquiryReply { proposal, ballot, vote } => {
            Kind::InquiryReply(hello::InquiryReply {
                proposal_id: id(proposal),
                ballot: Some(ballot_out(ballot)),
                voted_ballot: vote.as_ref().map(|vote| ballot_out(&vote.ballot)),
                decision: vote.as_ref().map(|vote| decision_out(&vote.decision)),
            })
        }
        Message::Settle { proposal, ballot, decision } => Kind::Settle(hello::Settle {
            proposal: proposal.bytes().to_vec(),
            ballot: Some(ballot_out(ballot)),
            decision: Some(decision_out(decision)),
        }),
        Message::Vote { proposal, ballot } => {
            Kind::Vote(hello::Vote { proposal_id: id(proposal), ballot: Some(ballot_out(ballot)) })
        }
        Message::Born(certificate) => Kind::Born(certificate.as_ref().into()),
        Message::Abandoned(proposal) => {
            Kind::Abandoned(hello::Abandoned { proposal_id: id(proposal) })
        }
    };
    hello::BirthMessage { kind: Some(kind) }
}

/// Decodes a message from the peer with the key `from`.
///
/// # Errors
/// When a part is missing, too long, malformed, or a signature is wrong.
pub fn from_wire(from: &PublicKey, message: hello::BirthMessage) -> Result<Message, WireError> {
    Ok(match message.kind.ok_or(WireError::Missing("a kind"))? {
        Kind::Propose(hello::Propose { proposal }) => Message::Propose(proposal_in(proposal)?),
        Kind::Promise(hello::Promise { proposal_id, signature }) => {
            let proposal = id_in(&proposal_id)?;
            let signature = signature_in(&signature)?;
            if !signature.is_by(from, &proposal) {
                return Err(WireError::Promise);
            }
            Message::Promise { proposal, signature }
        }
        Kind::Refuse(hello::Refuse { proposal_id, reason }) => {
            if reason.len() > MAX_REASON {
                let (what, found) = ("the reason of a refusal", reason.len());
                return Err(WireError::TooLong { what, limit: MAX_REASON, found });
            }
            Message::Refuse { proposal: id_in(&proposal_id)?, reason: sanitize(&reason) }
        }
        Kind::Inquire(hello::Inquire { proposal, ballot }) => {
            Message::Inquire { proposal: proposal_in(proposal)?, ballot: ballot_in(ballot)? }
        }
        Kind::InquiryReply(hello::InquiryReply { proposal_id, ballot, voted_ballot, decision }) => {
            let proposal = id_in(&proposal_id)?;
            let vote = match (voted_ballot, decision) {
                (None, None) => None,
                (ballot, decision) => Some(Vote {
                    ballot: ballot_in(ballot)?,
                    decision: decision_in(decision, &proposal)?,
                }),
            };
            Message::InquiryReply { proposal, ballot: ballot_in(ballot)?, vote }
        }
        Kind::Settle(hello::Settle { proposal, ballot, decision }) => {
            let proposal = proposal_in(proposal)?;
            let decision = decision_in(decision, &proposal.id())?;
            Message::Settle { proposal, ballot: ballot_in(ballot)?, decision }
        }
        Kind::Vote(hello::Vote { proposal_id, ballot }) => {
            Message::Vote { proposal: id_in(&proposal_id)?, ballot: ballot_in(ballot)? }
        }
        Kind::Born(certificate) => Message::Born(Arc::new(certificate.try_into()?)),
        Kind::Abandoned(hello::Abandoned { proposal_id }) => {
            Message::Abandoned(id_in(&proposal_id)?)
        }
    })
}

impl From<&Certificate> for hello::BirthCertificate {
    fn from(certificate: &Certificate) -> Self {
        let signature = |(id, signature): (&NodeId, &Signature)| hello::Signature {
            node_id: id.to_vec(),
            signature: signature.as_bytes().to_vec(),
        };
        Self {
            proposal: certificate.proposal().bytes().to_vec(),
            signatures: certificate.signatures().iter().map(signature).collect(),
        }
    }
}

impl TryFrom<hello::BirthCertificate> for Certificate {
    type Error = WireError;

    fn try_from(wire: hello::BirthCertificate) -> Result<Self, WireError> {
        let proposal = proposal_in(wire.proposal)?;
        if wire.signatures.len() > MAX_FOUNDERS {
            return Err(WireError::TooMany("signatures"));
        }
        let mut signatures = BTreeMap::new();
        for hello::Signature { node_id, signature } in wire.signatures {
            let id = NodeId::from_bytes(exact("a node id", &node_id)?);
            if signatures.insert(id, signature_in(&signature)?).is_some() {
                return Err(WireError::TooMany("signatures of one founder"));
            }
        }
        let certificate = Self::new(proposal, signatures);
        certificate.verify()?;
        Ok(certificate)
    }
}

fn proposal_in(bytes: Vec<u8>) -> Result<Arc<Proposal>, WireError> {
    if bytes.is_empty() {
        return Err(WireError::Missing("a proposal"));
    }
    Ok(Arc::new(Proposal::decode(bytes)?))
}

fn ballot_out(ballot: &Ballot) -> hello::Ballot {
    hello::Ballot { round: ballot.round, by: ballot.by.to_vec() }
}

fn ballot_in(ballot: Option<hello::Ballot>) -> Result<Ballot, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("a ballot"))?;
    Ok(Ballot {
        round: ballot.round,
        by: NodeId::from_bytes(exact("a ballot's owner", &ballot.by)?),
    })
}

fn decision_out(decision: &Decision) -> hello::Decision {
    let value = match decision {
        Decision::Born(certificate) => Value::Born(certificate.as_ref().into()),
        Decision::Abandoned => Value::Abandoned(hello::Abandonment {}),
    };
    hello::Decision { value: Some(value) }
}

fn decision_in(
    decision: Option<hello::Decision>,
    about: &ProposalId,
) -> Result<Decision, WireError> {
    let value = decision.and_then(|decision| decision.value);
    let certificate = match value.ok_or(WireError::Missing("a decision"))? {
        Value::Born(certificate) => Certificate::try_from(certificate)?,
        Value::Abandoned(hello::Abandonment {}) => return Ok(Decision::Abandoned),
    };
    if certificate.proposal().id() != *about {
        return Err(WireError::ProposalMismatch);
    }
    Ok(Decision::Born(Arc::new(certificate)))
}

fn id_in(bytes: &[u8]) -> Result<ProposalId, WireError> {
    Ok(ProposalId::from_bytes(exact("a proposal id", bytes)?))
}

fn signature_in(bytes: &[u8]) -> Result<Signature, WireError> {
    Ok(Signature::from_bytes(exact("a signature", bytes)?))
}

fn exact<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Length { what, expected: N, found: bytes.len() })
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use muster_types::limits::{MAX_BIRTH_CERTIFICATE, MAX_HELLO_MESSAGE, MAX_PROPOSAL};
    use prost::Message as _;

    use super::*;
    use crate::birth::certificate::Signer as _;
    use crate::birth::draft::Draft;
    use crate::birth::testing::{certificate, draft, founders, proposal};

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        let founders = founders(3);
        let key = founders[0].public_key();
        let proposal = Arc::new(proposal(&founders));
        let id = proposal.id();
        let certificate = Arc::new(certificate(&founders));
        let ballot = Ballot { round: 3, by: founders[1].node_id() };
        let born = Decision::Born(Arc::clone(&certificate));
        let vote = Some(Vote { ballot, decision: born.clone() });
        for message in [
            Message::Propose(Arc::clone(&proposal)),
            Message::Promise { proposal: id, signature: founders[0].sign_promise(&id) },
            Message::Refuse { proposal: id, reason: "later".to_owned() },
            Message::Inquire { proposal: Arc::clone(&proposal), ballot },
            Message::InquiryReply { proposal: id, ballot, vote },
            Message::InquiryReply { proposal: id, ballot, vote: None },
            Message::Settle { proposal: Arc::clone(&proposal), ballot, decision: born },
            Message::Settle { proposal, ballot, decision: Decision::Abandoned },
            Message::Vote { proposal: id, ballot },
            Message::Born(certificate),
            Message::Abandoned(id),
        ] {
            assert_eq!(from_wire(&key, to_wire(&message)).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn a_promise_signed_by_another_is_rejected() {
        let founders = founders(2);
        let id = proposal(&founders).id();
        let message = Message::Promise { proposal: id, signature: founders[1].sign_promise(&id) };
        let refused = from_wire(&founders[0].public_key(), to_wire(&message));
        assert_eq!(refused, Err(WireError::Promise));
    }

    /// The bug: a long reason was reported as too many of something, and characters that reverse
    /// the direction of writing reached the log.
    #[test]
    fn the_reason_of_a_refusal_is_bounded_and_cannot_control_a_terminal() {
        let founders = founders(1);
        let (key, proposal) = (founders[0].public_key(), proposal(&founders).id());
        let refuse = |reason: String| to_wire(&Message::Refuse { proposal, reason });
        let decoded = from_wire(&key, refuse("no\u{1b}[2J\u{202e}\nyes".to_owned()));
        let reason = "no [2J  yes".to_owned();
        assert_eq!(decoded, Ok(Message::Refuse { proposal, reason }));
        let what = "the reason of a refusal";
        let too_long = WireError::TooLong { what, limit: MAX_REASON, found: MAX_REASON + 1 };
        assert_eq!(from_wire(&key, refuse("x".repeat(MAX_REASON + 1))), Err(too_long));
        assert!(from_wire(&key, refuse("x".repeat(MAX_REASON))).is_ok());
    }

    #[test]
    fn a_certificate_that_lacks_a_founder_is_refused() {
        let founders = founders(3);
        let mut wire = hello::BirthCertificate::from(&certificate(&founders));
        wire.signatures.pop();
        assert!(matches!(
            Certificate::try_from(wire.clone()),
            Err(WireError::Certificate(CertificateError::Missing(_)))
        ));
        wire.signatures.push(wire.signatures[0].clone());
        assert_eq!(
            Certificate::try_from(wire),
            Err(WireError::TooMany("signatures of one founder"))
        );
    }

    fn is_forged(wire: hello::BirthCertificate) -> bool {
        let refused = Certificate::try_from(wire);
        matches!(refused, Err(WireError::Certificate(CertificateError::Forged(_))))
    }

    #[test]
    fn a_changed_field_breaks_every_signature() {
        let founders = founders(3);
        let mut wire = hello::BirthCertificate::from(&certificate(&founders));
        let changed = Draft { nonce: [0; 32], ..draft(&founders) };
        wire.proposal = Proposal::new(changed).unwrap().bytes().to_vec();
        assert!(is_forged(wire));
    }

    /// Protobuf has many encodings of one value. Only the proposer's is signed, so no peer can
    /// give a born cluster a second id.
    #[test]
    fn another_encoding_of_the_same_proposal_is_another_proposal_that_no_founder_signed() {
        let founders = founders(3);
        let whole = certificate(&founders);
        let proposal = whole.proposal();
        let mut bytes = proposal.bytes().to_vec();
        let first = 2 + usize::from(bytes[1]);
        bytes.rotate_left(first); // the token id behind the other fields
        let moved = Proposal::decode(bytes).unwrap();
        assert_eq!(moved.founders(), proposal.founders());
        assert_eq!(moved.token_id(), proposal.token_id());
        assert_ne!(moved.id(), proposal.id());
        let wire = hello::BirthCertificate::from(&whole);
        assert!(is_forged(hello::BirthCertificate { proposal: moved.bytes().to_vec(), ..wire }));
        let message = Message::Settle {
            proposal: Arc::new(moved),
            ballot: Ballot { round: 0, by: proposal.proposer() },
            decision: Decision::Born(Arc::new(whole)),
        };
        let refused = from_wire(&founders[0].public_key(), to_wire(&message));
        assert_eq!(refused, Err(WireError::ProposalMismatch));
    }

    /// A value that a newer version added must not count as a vote to abandon.
    #[test]
    fn a_decision_without_a_known_value_is_no_decision() {
        let founders = founders(3);
        let proposal = Arc::new(proposal(&founders));
        let ballot = Ballot { round: 0, by: proposal.proposer() };
        let settle = Message::Settle { proposal, ballot, decision: Decision::Abandoned };
        let mut wire = to_wire(&settle);
        let Some(Kind::Settle(settle)) = &mut wire.kind else { panic!("{wire:?}") };
        settle.decision = Some(hello::Decision { value: None });
        let refused = from_wire(&founders[0].public_key(), wire);
        assert_eq!(refused, Err(WireError::Missing("a decision")));
    }

    #[test]
    fn the_largest_message_and_the_largest_certificate_fit_into_their_limits() {
        let founders = founders(MAX_FOUNDERS);
        let mut bytes = proposal(&founders).bytes().to_vec();
        // Field 15, which no version has: its tag, a length of two bytes, the value.
        let value = MAX_PROPOSAL - bytes.len() - 3;
        bytes.push(0x7a);
        prost::encode_length_delimiter(value, &mut bytes).unwrap();
        bytes.resize(MAX_PROPOSAL, 0);
        let proposal = Arc::new(Proposal::decode(bytes).unwrap());
        let id = proposal.id();
        let signatures = founders.iter().map(|one| (one.node_id(), one.sign_promise(&id)));
        let certificate = Certificate::new(Arc::clone(&proposal), signatures.collect());
        certificate.verify().unwrap();
        assert!(hello::BirthCertificate::from(&certificate).encoded_len() < MAX_BIRTH_CERTIFICATE);
        let ballot = Ballot { round: u32::MAX, by: proposal.proposer() };
        let decision = Decision::Born(Arc::new(certificate));
        let settle = to_wire(&Message::Settle { proposal, ballot, decision });
        assert!(settle.encoded_len() < MAX_HELLO_MESSAGE - 1024, "{}", settle.encoded_len());
    }
}
