//! Encoding of birth messages. Input is bounded and parsed strictly, and its signatures are
//! checked, so that the protocol sees only valid ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use muster_messages::hello::{self, birth_message::Kind};
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_REASON};
use muster_types::text::sanitize;
use muster_types::{NodeId, PublicKey};

use super::certificate::{Certificate, CertificateError, Signature};
use super::message::Message;
use super::proposal::{Draft, Founder, Proposal, ProposalError, ProposalId};
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
    #[error("birth message: {what} is malformed")]
    Malformed { what: &'static str },
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
        Message::Propose(proposal) => Kind::Propose(proposal_out(proposal)),
        Message::Promise { proposal, signature } => Kind::Promise(hello::Promise {
            proposal_id: id(proposal),
            signature: signature.as_bytes().to_vec(),
        }),
        Message::Refuse { proposal, reason } => {
            Kind::Refuse(hello::Refuse { proposal_id: id(proposal), reason: reason.clone() })
        }
        Message::Inquire { proposal, ballot } => Kind::Inquire(hello::Inquire {
            proposal: Some(proposal_out(proposal)),
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
            proposal: Some(proposal_out(proposal)),
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
        Kind::Propose(proposal) => Message::Propose(proposal_in(Some(proposal))?),
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
            proposal: Some(proposal_out(certificate.proposal())),
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

fn proposal_out(proposal: &Proposal) -> hello::Proposal {
    let founder = |founder: &Founder| hello::Founder {
        public_key: founder.public_key.to_vec(),
        name: founder.name.to_string(),
        addresses: founder.addresses.iter().map(ToString::to_string).collect(),
        epoch: founder.epoch,
    };
    hello::Proposal {
        token_id: proposal.token_id().to_owned(),
        founders: proposal.founders().iter().map(founder).collect(),
        nonce: proposal.nonce().to_vec(),
        config_digest: proposal.config_digest().to_vec(),
        proposer: proposal.proposer().to_vec(),
    }
}

fn proposal_in(proposal: Option<hello::Proposal>) -> Result<Arc<Proposal>, WireError> {
    let proposal = proposal.ok_or(WireError::Missing("a proposal"))?;
    if proposal.founders.len() > MAX_FOUNDERS {
        return Err(WireError::TooMany("founders"));
    }
    let draft = Draft {
        token_id: proposal.token_id,
        founders: proposal.founders.iter().map(founder_in).collect::<Result<_, _>>()?,
        nonce: exact("the nonce", &proposal.nonce)?,
        config_digest: exact("the config digest", &proposal.config_digest)?,
        proposer: NodeId::from_bytes(exact("the proposer", &proposal.proposer)?),
    };
    Ok(Arc::new(Proposal::new(draft)?))
}

fn founder_in(founder: &hello::Founder) -> Result<Founder, WireError> {
    if founder.addresses.len() > MAX_ADDRESSES {
        return Err(WireError::TooMany("addresses"));
    }
    let address = |text: &String| {
        text.parse::<SocketAddr>().map_err(|_| WireError::Malformed { what: "an address" })
    };
    Ok(Founder {
        public_key: PublicKey::from_bytes(exact("a public key", &founder.public_key)?),
        name: founder.name.parse().map_err(|_| WireError::Malformed { what: "a node name" })?,
        addresses: founder.addresses.iter().map(address).collect::<Result<_, _>>()?,
        epoch: founder.epoch,
    })
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
    let certificate = match decision {
        Decision::Born(certificate) => Some(certificate.as_ref().into()),
        Decision::Abandoned => None,
    };
    hello::Decision { certificate }
}

fn decision_in(
    decision: Option<hello::Decision>,
    about: &ProposalId,
) -> Result<Decision, WireError> {
    let decision = decision.ok_or(WireError::Missing("a decision"))?;
    let Some(certificate) = decision.certificate else { return Ok(Decision::Abandoned) };
    let certificate = Certificate::try_from(certificate)?;
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
    use super::*;
    use crate::birth::certificate::Signer as _;
    use crate::birth::testing::{certificate, founders, proposal};

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

    #[test]
    fn a_changed_field_breaks_every_signature() {
        let mut wire = hello::BirthCertificate::from(&certificate(&founders(3)));
        wire.proposal.as_mut().unwrap().nonce = vec![0; 32];
        assert!(matches!(
            Certificate::try_from(wire),
            Err(WireError::Certificate(CertificateError::Forged(_)))
        ));
    }

    #[test]
    fn founders_out_of_order_or_twice_are_refused() {
        let mut wire = proposal_out(&proposal(&founders(3)));
        wire.founders.swap(0, 1);
        assert_eq!(proposal_in(Some(wire.clone())), Err(ProposalError::Order.into()));
        wire.founders[1] = wire.founders[0].clone();
        assert_eq!(proposal_in(Some(wire)), Err(ProposalError::Order.into()));
    }
}
