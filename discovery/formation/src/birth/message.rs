//! What founders say to each other; the sender is always known from the proved session.

use std::sync::Arc;

use super::certificate::{Certificate, Signature};
use super::proposal::{Proposal, ProposalId};
use super::record::{Ballot, Verdict};

/// One message of the birth protocol, checked for form and signatures but not for sense.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Proposer to founder: sign this.
    Propose(Arc<Proposal>),
    /// Founder to proposer: signed, and on my disk.
    Promise { proposal: ProposalId, signature: Signature },
    /// Founder to proposer: not now, for this reason. Binds nobody.
    Refuse { proposal: ProposalId, reason: String },
    /// Founder to founder: how do you stand? Answer no lower ballot after this one.
    Inquire { proposal: Arc<Proposal>, ballot: Ballot },
    /// The answer of one who has signed: the highest ballot answered, and the last vote.
    Standing { proposal: ProposalId, ballot: Ballot, vote: Option<(Ballot, Verdict)> },
    /// Founder to founder: vote for this.
    Settle { proposal: Arc<Proposal>, ballot: Ballot, verdict: Verdict },
    /// Voted as that ballot asked, and it is on my disk.
    Vote { proposal: ProposalId, ballot: Ballot },
    /// A majority of the founders voted for it: the cluster exists.
    Born(Arc<Certificate>),
    /// It can never be born: the sender never signed it and never will, or knows that a majority
    /// voted to abandon it.
    Abandoned(ProposalId),
}
