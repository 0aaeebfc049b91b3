//! Leadership and liveness of the group, as this node sees them. The quorum watch decides when a
//! leader steps down ([`super::quorum_watch`]).

use std::time::Duration;

use muster_types::NodeId;
use tokio::time::Instant;

use super::error::GroupError;
use super::group::Group;
use super::quorum::STUCK_AFTER;

/// A leader that has been silent for this long is unreachable: several heartbeats, and allowance
/// for a busy disk.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

impl Group {
    /// The leader, as far as this node knows; `None` while this node leads in name only.
    pub fn leader(&self) -> Option<NodeId> {
        let leader = self.raft.metrics().borrow().current_leader;
        let leads = || {
            !self.channels.leadership.borrow().stepped_down
                && !*self.channels.stepping_down.borrow()
        };
        leader.filter(|id| *id != self.me || leads())
    }

    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.me)
    }

    /// Notes an append from a leader.
    pub(super) fn on_append(&self) {
        self.last_append.send_replace(Some(Instant::now()));
    }

    /// Returns whether this node leads with a majority, or receives appends from a leader that
    /// does.
    pub(crate) fn has_live_leader(&self) -> bool {
        let last_append = *self.last_append.borrow();
        self.is_leader()
            || (self.leader().is_some()
                && last_append.is_some_and(|at| at.elapsed() < LEADER_TIMEOUT))
    }

    /// Time since this node last knew a leader with a majority and could follow it.
    pub fn leaderless_for(&self) -> Duration {
        let leaderless = match self.leader() {
            Some(_) => Duration::ZERO,
            None => self.channels.leadership.borrow().last_leader_at.elapsed(),
        };
        leaderless.max(self.stuck_for().unwrap_or_default())
    }

    /// Time for which this node's Raft has made no progress; `None` below [`STUCK_AFTER`]. Either a
    /// write has not returned, or openraft has published nothing: it waits for its disk and handles
    /// no message meanwhile. Its metrics are stale then.
    pub(crate) fn stuck_for(&self) -> Option<Duration> {
        let since =
            self.channels.stall.elapsed().max(self.channels.leadership.borrow().core_silence);
        Some(since).filter(|since| *since >= STUCK_AFTER)
    }

    /// Refuses a peer's message while openraft is blocked: it would be queued in memory without
    /// bound. To Raft this is a lost message.
    pub(crate) fn check_accepts_messages(&self) -> Result<(), GroupError> {
        let since = self.channels.leadership.borrow().core_silence;
        if since < STUCK_AFTER { Ok(()) } else { Err(GroupError::Stuck { since }) }
    }
}
