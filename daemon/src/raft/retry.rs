//! Retry loop that finds a leader that answers, with one overall deadline. It does not know what is
//! called.

use std::time::Duration;

use muster_types::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{GroupError, LocalRaftError};
use super::group::Group;
use super::quorum::STUCK_AFTER;
use super::types::Metrics;

/// Timeout of one attempt at one leader.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to wait for the reply of a leader that was deposed. If it is alive, its successor commits
/// the entries it had started, and it replies within a few round trips.
const DEPOSED_GRACE: Duration = Duration::from_millis(100);

/// Interval at which a call looks for a leader when the metrics announce no change.
pub(super) const LEADER_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// One call to the leader, with its attempts.
pub(super) struct LeaderRetry {
    group: Group,
    metrics: watch::Receiver<Metrics>,
    start: Instant,
    pub(super) deadline: Instant,
    has_failed: bool,
}

impl LeaderRetry {
    pub(super) fn new(group: &Group, limit: Duration) -> Self {
        let start = Instant::now();
        let metrics = group.raft.metrics();
        Self { group: group.clone(), metrics, start, deadline: start + limit, has_failed: false }
    }

    pub(super) fn timeout_error(&self) -> GroupError {
        match self.group.stuck_for() {
            Some(since) => GroupError::Stuck { since },
            None => GroupError::NoLeader { waited: self.start.elapsed() },
        }
    }

    /// Waits for a leader and returns it. After a failed attempt, waits a moment first.
    pub(super) async fn leader(&mut self) -> Result<NodeId, GroupError> {
        loop {
            // A short stall is no error, like an election.
            if self.start.elapsed() >= STUCK_AFTER && self.group.stuck_for().is_some() {
                return Err(self.timeout_error());
            }
            let leader = self.group.leader().filter(|_| !self.has_failed);
            self.has_failed = false;
            if let Some(leader) = leader {
                return Ok(leader);
            }
            if Instant::now() >= self.deadline {
                return Err(self.timeout_error());
            }
            if let Ok(Err(_)) = timeout(LEADER_POLL_INTERVAL, self.metrics.changed()).await {
                return Err(GroupError::Stopped("its core ended".to_owned()));
            }
        }
    }

    /// One attempt at a leader. `None` if the node did not answer as leader, or was deposed as far
    /// as this node knows: otherwise a dead leader would block the call although there is another.
    pub(super) async fn attempt<T>(
        &mut self,
        leader: NodeId,
        answer: impl Future<Output = Result<T, LocalRaftError>>,
    ) -> Result<Option<T>, GroupError> {
        self.has_failed = true;
        let until = self.deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let mut metrics = self.metrics.clone();
        let deposed = async {
            // An error means that Raft has ended, which the attempt reports too.
            metrics.wait_for(|metrics| metrics.current_leader != Some(leader)).await.ok();
            sleep(DEPOSED_GRACE).await;
        };
        let answer = tokio::select! {
            biased;
            answer = timeout_at(until, answer) => answer,
            () = deposed => return Ok(None),
        };
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(LocalRaftError::Stopped(why))) => Err(GroupError::Stopped(why)),
            Ok(Err(LocalRaftError::NotLeader)) | Err(_) => Ok(None),
        }
    }
}
