//! What became of a command. A refusal is an outcome like any other, with a sentence for a person.

use muster_types::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// What `apply` made of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It had been carried out before, or changes nothing.
    Unchanged,
    /// The node is a member. `again`: it already was; no use of the token was spent.
    Admitted { node: NodeId, again: bool },
    /// The node is no member any more, by this command or an earlier one.
    Removed { node: NodeId, name: NodeName },
    /// Nothing was changed.
    Refused(Refusal),
}

impl Outcome {
    /// The refusal as an error, for callers that go on only with a success.
    pub fn into_result(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

/// Why nothing was done: a reason to branch on and a sentence that says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// There is no cluster yet.
    NotFounded,
    /// The cluster was founded by another birth certificate.
    AlreadyFounded,
    /// Somebody else came first: other authorities, another token of this id.
    Conflict,
    /// True at the moment only: try again.
    NotNow,
    /// Another member holds the name.
    NameTaken,
    /// This identity was removed from the cluster.
    Removed,
    /// The token is unknown, or does not allow this.
    Token,
    /// The request itself is wrong.
    Invalid,
    /// No member has this id or name.
    NotAMember,
    /// No token has this id.
    NoSuchToken,
    /// The cluster would be left without a control plane.
    LastControlPlane,
    /// etcd would be left without a quorum.
    QuorumAtRisk,
    /// A bound would be exceeded.
    Full,
    /// The operator is unknown, or its role does not allow this.
    NotAllowed,
    /// The etcd plan has moved on since this was decided.
    Stale,
}
