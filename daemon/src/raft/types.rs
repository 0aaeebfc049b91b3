//! The types that openraft is used with.

use muster_proto::NodeId;

use super::store::{Body, State};
use crate::state::{ClusterState, Outcome, Stamped};

openraft::declare_raft_types!(
    /// Addresses are no part of Raft: the registry and the endpoint know where a node is.
    pub TypeConfig:
        D = Stamped,
        R = Outcome,
        NodeId = NodeId,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Body,
);

/// A node's vote and log.
pub type LogStore = super::store::LogStore<TypeConfig>;

/// A node's replicated state.
pub type Machine = super::store::Machine<TypeConfig, ClusterState>;

/// A node's Raft state, open.
pub type Opened = super::store::Opened<TypeConfig, ClusterState>;

impl State for ClusterState {
    type Command = Stamped;
    type Outcome = Outcome;

    fn apply(&mut self, index: u64, command: &Stamped) -> Outcome {
        ClusterState::apply(self, index, command)
    }

    fn nothing() -> Outcome {
        Outcome::Unchanged
    }
}

/// openraft's handle.
pub type Raft = openraft::Raft<TypeConfig>;

/// What openraft publishes about itself.
pub type Metrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;

/// A snapshot between openraft and the network.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
