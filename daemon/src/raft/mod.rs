//! The Raft group: client, network, timers, quorum watch and voters. The store is in `muster_storage`.

pub mod codec;
mod group;
mod network;
pub mod quorum;
mod quorum_watch;
mod start;
pub mod timing;
pub mod types;
pub mod voters;

pub use group::{AppliedCommand, Group, GroupError, LocalRaftError, MAX_COMMAND};
pub use start::{RaftTask, StartError, StartOptions, prepare_store, start};
pub use types::{Metrics, Raft, TypeConfig};
