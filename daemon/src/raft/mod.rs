//! The Raft group: the handle to it, network, timers and quorum watch. Only this module talks to
//! openraft. The store is in `muster_storage`, the replicated state in `muster_state`.

mod client;
pub mod codec;
mod error;
mod group;
mod health;
mod membership;
mod network;
mod quorum;
mod quorum_watch;
mod receive;
mod retry;
mod start;
pub mod timing;
pub mod types;
pub(crate) mod voters;

pub use client::AppliedCommand;
pub(crate) use codec::SnapshotHeader;
pub use error::{GroupError, LocalRaftError};
pub use group::Group;
pub use membership::{MembershipError, MembershipLock};
pub(crate) use start::prepare_store;
pub use start::{RaftTask, StartError, StartOptions, start};
pub use types::{Metrics, TypeConfig};
