//! The types of openraft and of the storage, as this node uses them.

use muster_state::ClusterState;
pub use muster_storage::TypeConfig;
use muster_types::NodeId;

/// The store of a node's vote and log.
pub(crate) type LogStore = muster_storage::LogStore<TypeConfig>;

/// The opened Raft store of a node.
pub type RaftStorage = muster_storage::RaftStorage<TypeConfig, ClusterState>;

/// openraft's handle.
pub(crate) type Raft = openraft::Raft<TypeConfig>;

/// Metrics that openraft publishes.
pub type Metrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;

/// A snapshot between openraft and the network.
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
