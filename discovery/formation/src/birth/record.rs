//! What a node must never forget about births: the durable half of the state machine.

use std::sync::Arc;

use muster_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::proposal::Proposal;

/// An attempt to settle a proposal. Greater ballots supersede smaller ones; no two founders share
/// one. Round 0 belongs to the proposer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    pub round: u32,
    pub by: NodeId,
}

/// What founders vote on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The cluster exists. Nobody can ask for this without the certificate.
    Born(Arc<Certificate>),
    /// The cluster will never exist.
    Abandoned,
}

/// A proposal that this node has signed and that is not settled yet, as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promise {
    pub proposal: Arc<Proposal>,
    /// The highest ballot answered; none below it is answered any more.
    pub ballot: Ballot,
    /// The last vote, with the ballot that asked for it.
    pub vote: Option<(Ballot, Verdict)>,
}

/// What a node is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bond {
    /// Nothing: it may sign a proposal.
    Free,
    /// One proposal, until that is settled.
    Promised(Promise),
    /// The cluster that it founded. For good.
    Born(Arc<Certificate>),
    /// The cluster that admitted it. For good.
    Joined(ClusterId),
}

/// All of it. A node signs at most one proposal per turn, and only one that names its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    pub turn: u64,
    pub bond: Bond,
}

impl Record {
    /// A node that has never signed anything.
    pub const NEW: Self = Self { turn: 0, bond: Bond::Free };

    pub fn is_free(&self) -> bool {
        matches!(self.bond, Bond::Free)
    }

    /// The proposal that is signed and not settled.
    pub fn promise(&self) -> Option<&Promise> {
        match &self.bond {
            Bond::Promised(promise) => Some(promise),
            Bond::Free | Bond::Born(_) | Bond::Joined(_) => None,
        }
    }

    /// The certificate of the cluster that this node founded.
    pub fn born(&self) -> Option<&Arc<Certificate>> {
        match &self.bond {
            Bond::Born(certificate) => Some(certificate),
            Bond::Free | Bond::Promised(_) | Bond::Joined(_) => None,
        }
    }

    /// The cluster that this node belongs to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        match &self.bond {
            Bond::Born(certificate) => Some(certificate.cluster_id()),
            Bond::Joined(cluster) => Some(*cluster),
            Bond::Free | Bond::Promised(_) => None,
        }
    }
}
