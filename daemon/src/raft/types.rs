//! The types of openraft and of the storage, as this node uses them.

use muster_state::ClusterState;
pub use muster_storage::TypeConfig;
use muster_types::NodeId;

/// The store of a node's vote and log.
pub type LogStore = muster_storage::LogStore<TypeConfig>;

/// The state machine of a node.
pub type StateMachine = muster_storage::StateMachine<TypeConfig, ClusterState>;

/// The opened Raft store of a node.
pub type RaftStorage = muster_storage::RaftStorage<TypeConfig, ClusterState>;

/// openraft's handle.
pub type Raft = openraft::Raft<TypeConfig>;

/// What openraft publishes about itself.
pub type Metrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;

/// A snapshot between openraft and the network.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
