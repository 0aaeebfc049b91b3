//! The Raft group: client, network, timers, quorum watch and voters. The store is in [`store`].

pub mod codec;
mod group;
mod network;
pub mod quorum;
mod start;
pub mod timing;
pub mod types;
pub mod voters;
mod watch;

pub use group::{Applied, Group, GroupError, HereError, MAX_COMMAND};
pub use start::{Running, Start, StartError, claim, start};
pub use types::{Metrics, Raft, TypeConfig};
