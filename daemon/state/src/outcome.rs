//! Outcomes of commands. A refusal is an outcome like any other, with a message for the operator.

use muster_types::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// The result of applying one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The command was applied.
    Done,
    /// The command was applied before, or changes nothing.
    Unchanged,
    /// The node is a member. `already_member`: it already was, so no use of the token was spent.
    Admitted { node: NodeId, already_member: bool },
    /// The node is no longer a member, by this command or an earlier one.
    Removed { node: NodeId, name: NodeName },
    /// Nothing was changed.
    Refused(Refusal),
}

impl Outcome {
    /// Converts a refusal into an error, for callers that continue only on success.
    pub fn into_result(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

/// A rejected command: a kind to branch on and a message that names the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalKind {
    /// There is no cluster yet.
    NotFounded,
    /// The cluster was founded by another birth certificate.
    AlreadyFounded,
    /// Another value is set already: other authorities, another token of this id.
    Conflict,
    /// A temporary condition: try again.
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
    /// The etcd plan has changed since this was decided.
    Stale,
}
