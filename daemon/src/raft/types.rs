//! The parts of openraft and of the storage, with this node's types.

use muster_state::ClusterState;
pub use muster_storage::TypeConfig;
use muster_types::NodeId;

/// A node's vote and log.
pub type LogStore = muster_storage::LogStore<TypeConfig>;

/// A node's replicated state.
pub type Machine = muster_storage::Machine<TypeConfig, ClusterState>;

/// A node's Raft state, open.
pub type Opened = muster_storage::Opened<TypeConfig, ClusterState>;

/// openraft's handle.
pub type Raft = openraft::Raft<TypeConfig>;

/// What openraft publishes about itself.
pub type Metrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;

/// A snapshot between openraft and the network.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
