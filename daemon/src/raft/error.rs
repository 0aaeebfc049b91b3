//! Errors of calls to the group. It does not decide what is retried.

use std::time::Duration;

/// A failed call to the group. None of these means that a command was not or will not be applied;
/// every command may be proposed again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    #[error(
        "no leader answered within {} s; a majority of the control-plane nodes must be up and \
         connected: see `musterctl status`",
        waited.as_secs()
    )]
    NoLeader { waited: Duration },
    #[error(
        "this node's Raft has been stuck for {} s: its disk hangs or the machine is overloaded; \
         use another node and check this one's disk",
        since.as_secs()
    )]
    Stuck { since: Duration },
    #[error("this node's Raft has stopped: {0}")]
    Stopped(String),
}

/// The reason why this node did not answer as the leader.
#[derive(Debug)]
pub enum LocalRaftError {
    /// This node is not the leader (any more).
    NotLeader,
    Stopped(String),
}
