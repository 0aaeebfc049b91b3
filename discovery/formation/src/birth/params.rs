//! A node's own parameters of a birth, and the quorums that it needs. Pure values; the protocol uses
//! them.

use muster_types::NodeId;

use super::proposal::Proposal;

/// Numbers of founders needed at each stage. A value, so that the model check can show that no
/// smaller number is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quorums {
    /// Signatures that make a certificate.
    pub signatures: usize,
    /// Replies to an inquiry before a decision may be put to the vote.
    pub replies: usize,
    /// Votes that make a birth.
    pub born: usize,
    /// Votes that make an abandonment.
    pub abandoned: usize,
}

impl Quorums {
    /// The numbers for a birth of `founders`: all sign, a majority settles.
    pub const fn of(founders: usize) -> Self {
        let majority = founders / 2 + 1;
        Self { signatures: founders, replies: majority, born: majority, abandoned: majority }
    }
}

/// A node's own birth parameters, known before any proposal.
#[derive(Debug, Clone)]
pub struct BirthParams {
    pub me: NodeId,
    pub token_id: String,
    /// Number of founders that a proposal must name.
    pub expect: usize,
    /// Digest of the birth-relevant settings.
    pub config_digest: [u8; 32],
    /// Quorums by the number of founders that a proposal names. Never by `expect`: the config may
    /// have changed since the promise.
    pub quorums: fn(usize) -> Quorums,
}

impl BirthParams {
    /// Returns the reason to reject a proposal that this node is free to sign, if any.
    pub(super) fn rejection_reason(&self, proposal: &Proposal) -> Option<String> {
        let found = proposal.founders().len();
        if found != self.expect {
            Some(format!("the proposal names {found} founders, this node expects {}", self.expect))
        } else if proposal.token_id() != self.token_id {
            Some(format!(
                "the proposal is for token {}, not {}",
                proposal.token_id(),
                self.token_id
            ))
        } else if *proposal.config_digest() != self.config_digest {
            Some("the birth fields of proposer and founder differ".to_owned())
        } else {
            None
        }
    }
}
