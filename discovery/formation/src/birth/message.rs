//! Messages between founders. The sender is always known from the authenticated session.

use std::sync::Arc;

use super::certificate::{Certificate, Signature};
use super::proposal::{Proposal, ProposalId};
use super::record::{Ballot, Decision, Vote};

/// One message of the birth protocol. Syntax and signatures are checked, its meaning is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Proposer to founder: request for a signature.
    Propose(Arc<Proposal>),
    /// Founder to proposer: signed, and durable on the sender's disk.
    Promise { proposal: ProposalId, signature: Signature },
    /// Founder to proposer: rejected for now, with the reason. Commits neither side.
    Refuse { proposal: ProposalId, reason: String },
    /// Founder to founder: request for the last vote; the receiver ignores lower ballots from now
    /// on (Paxos: prepare).
    Inquire { proposal: Arc<Proposal>, ballot: Ballot },
    /// Reply of a signer to an inquiry: its highest ballot and its last vote (Paxos: promise).
    InquiryReply { proposal: ProposalId, ballot: Ballot, vote: Option<Vote> },
    /// Founder to founder: request to vote for this value (Paxos: accept).
    Settle { proposal: Arc<Proposal>, ballot: Ballot, decision: Decision },
    /// Reply: voted in that ballot, and durable on the sender's disk (Paxos: accepted).
    Vote { proposal: ProposalId, ballot: Ballot },
    /// A majority of the founders voted for this certificate: the cluster exists.
    Born(Arc<Certificate>),
    /// The proposal can never be born: the sender never signed it and never will, or knows that a
    /// majority voted to abandon it.
    Abandoned(ProposalId),
}
