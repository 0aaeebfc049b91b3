//! The record that a node writes when it promises ([`Promise`]), votes, founds or joins:
//! [`BirthRecord`], the durable half of the birth state machine.
//!
//! `step` decides its content. `driver` has `store` write it to the file `birth` before any reply that
//! rests on it is sent.

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

/// Value that the founders vote on (Paxos: value).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// The cluster exists. Proposing this value requires the certificate.
    Born(Arc<Certificate>),
    /// The cluster will never exist.
    Abandoned,
}

/// A founder's vote on a proposal that it has signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// The ballot that asked for it.
    pub ballot: Ballot,
    pub decision: Decision,
}

/// A signed proposal that is not settled yet, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Promise {
    pub proposal: Arc<Proposal>,
    /// The highest ballot answered; lower ones are ignored from then on.
    pub ballot: Ballot,
    /// The last vote.
    pub vote: Option<Vote>,
}

/// A node's commitment to a proposal or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Commitment {
    /// None: the node may sign a proposal.
    None,
    /// One proposal, until it is settled.
    Promised(Promise),
    /// The cluster that it founded. Permanent.
    Born(Arc<Certificate>),
    /// The cluster that admitted it. Permanent.
    Joined(ClusterId),
}

/// The durable birth record of a node. A node signs at most one proposal per epoch, and only one
/// that names its current epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BirthRecord {
    /// Number of times that this node was released from a promise.
    pub epoch: u64,
    pub commitment: Commitment,
}

impl BirthRecord {
    /// The record of a node that has never signed anything.
    pub const NEW: Self = Self { epoch: 0, commitment: Commitment::None };

    pub fn is_uncommitted(&self) -> bool {
        matches!(self.commitment, Commitment::None)
    }

    /// The proposal that is signed but not settled.
    pub fn promise(&self) -> Option<&Promise> {
        match &self.commitment {
            Commitment::Promised(promise) => Some(promise),
            Commitment::None | Commitment::Born(_) | Commitment::Joined(_) => None,
        }
    }

    /// The certificate of the cluster that this node founded.
    pub fn born(&self) -> Option<&Arc<Certificate>> {
        match &self.commitment {
            Commitment::Born(certificate) => Some(certificate),
            Commitment::None | Commitment::Promised(_) | Commitment::Joined(_) => None,
        }
    }

    /// The cluster that this node belongs to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        match &self.commitment {
            Commitment::Born(certificate) => Some(certificate.cluster_id()),
            Commitment::Joined(cluster) => Some(*cluster),
            Commitment::None | Commitment::Promised(_) => None,
        }
    }
}
