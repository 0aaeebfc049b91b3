//! Raft's membership: reads it, and changes it one step at a time under a lock. The only user of
//! openraft's membership calls. [`decide_removal`] and [`super::voters`] decide what is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_state::{ClusterState, Command, Refusal, RemovalContext, RemovalStep, decide_removal};
use muster_types::NodeId;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use super::error::LocalRaftError;
use super::group::Group;
use super::retry::ATTEMPT_TIMEOUT;
use super::types::Raft;
use super::voters::{MembershipChange, RaftMembership};

/// Maximum number of entries that a learner may lag behind the leader to be promoted.
const MAX_LAG: u64 = 16;

/// A failed change of Raft's membership.
pub type MembershipError = RaftError<NodeId, ClientWriteError<NodeId, EmptyNode>>;

/// The right to change Raft's membership. No other task of this node has it until it is dropped.
pub struct MembershipLock {
    raft: Raft,
    _guard: OwnedMutexGuard<()>,
}

impl std::fmt::Debug for MembershipLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MembershipLock").finish_non_exhaustive()
    }
}

impl MembershipLock {
    /// Adds a node that receives the log and does not vote.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        self.raft.add_learner(node, EmptyNode {}, false).await.map(drop)
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
    }

    /// Takes a node's vote. It stays a learner, which receives its own removal.
    async fn remove_voter(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), true).await
    }

    /// Performs one change. A removed node gets no more messages.
    pub(crate) async fn perform(&self, change: MembershipChange) -> Result<(), MembershipError> {
        match change {
            MembershipChange::AddLearner(node) => self.add_learner(node).await,
            MembershipChange::Promote(node) => self.promote(node).await,
            MembershipChange::Finish(voters) => {
                self.change(ChangeMembers::ReplaceAllVoters(voters), true).await
            }
            MembershipChange::RemoveVoter(node) => {
                self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
            }
            MembershipChange::RemoveLearner(node) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await
            }
        }
    }

    /// `keep`: a voter that is removed stays a learner.
    async fn change(
        &self,
        change: ChangeMembers<NodeId, EmptyNode>,
        keep: bool,
    ) -> Result<(), MembershipError> {
        self.raft.change_membership(change, keep).await.map(drop)
    }
}

impl Group {
    /// The current voters, as far as this node knows: those of both sets while a change is half
    /// done.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        let membership = Arc::clone(&self.raft.metrics().borrow().membership_config);
        membership.membership().voter_ids().collect()
    }

    /// Returns whether this node is a voter of the group, as far as it knows.
    pub(crate) fn is_voter(&self) -> bool {
        self.voters().contains(&self.me)
    }

    /// Raft's membership, as this node sees it if it leads.
    pub(crate) fn raft_membership(&self) -> RaftMembership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let stored = metrics.membership_config.membership();
        let configs = stored.get_joint_config();
        let voters = configs.last().cloned().unwrap_or_default();
        let learners: BTreeSet<_> = stored.learner_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.clone().unwrap_or_default();
        let is_close = |id: &&NodeId| {
            matched.get(*id).is_some_and(|log| log.is_some_and(|log| log.index + MAX_LAG >= last))
        };
        let caught_up = learners.iter().filter(is_close).copied().collect();
        RaftMembership { voters, learners, caught_up, joint: configs.len() > 1 }
    }

    /// On the leader: locks the membership and returns a state in which its whole log is applied.
    /// Otherwise a removal that is in the log and not applied yet could be undone: the voters
    /// controller would find the node in the registry and wait for its vote, which never comes.
    pub async fn lock_membership(
        &self,
    ) -> Result<(MembershipLock, Arc<ClusterState>), LocalRaftError> {
        let until = Instant::now() + ATTEMPT_TIMEOUT;
        let not_now = |_| LocalRaftError::NotLeader;
        let guard = timeout_at(until, Arc::clone(&self.membership_lock).lock_owned())
            .await
            .map_err(not_now)?;
        timeout_at(until, self.write(Command::Barrier)).await.map_err(not_now)??;
        Ok((MembershipLock { raft: self.raft.clone(), _guard: guard }, self.state()))
    }

    /// On the leader: changes Raft's membership as far as a command needs it before it is appended.
    /// The lock must be held until the command is applied: until then, the voters controller would
    /// make a removed node a voter again. Changes nothing if the command would be refused.
    pub(super) async fn prepare_membership(
        &self,
        command: &Command,
    ) -> Result<Result<Option<MembershipLock>, Refusal>, LocalRaftError> {
        let Command::Remove(remove) = command else { return Ok(Ok(None)) };
        let (lock, state) = self.lock_membership().await?;
        // The node that an operator asked has checked that the voters answer. Here the change of
        // the membership itself shows that.
        let context = RemovalContext {
            raft_voters: self.voters(),
            leader: Some(self.me),
            ..RemovalContext::default()
        };
        let plan = match decide_removal(&state, &context, remove) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for step in plan.steps {
            match step {
                RemovalStep::HandOverLeadership => return Err(self.hand_over().await),
                RemovalStep::RemoveRaftVoter => {
                    lock.remove_voter(plan.node).await.map_err(|error| not_changed(&error))?;
                }
                // The first is over, or left to the etcd plan. The caller appends the command.
                RemovalStep::RemoveEtcdMember { .. } | RemovalStep::Commit => {}
            }
        }
        Ok(Ok(Some(lock)))
    }

    /// Hands the leadership over to another node, which then performs the removal.
    async fn hand_over(&self) -> LocalRaftError {
        info!("handing over leadership before this node is removed");
        let _handover = LeadershipHandover::begin(self);
        let mut metrics = self.raft.metrics();
        let other = metrics.wait_for(|m| m.current_leader.is_some_and(|leader| leader != self.me));
        timeout(ATTEMPT_TIMEOUT, other).await.ok(); // the caller looks for the leader either way
        LocalRaftError::NotLeader
    }
}

fn not_changed(error: &MembershipError) -> LocalRaftError {
    match error {
        RaftError::APIError(_) => LocalRaftError::NotLeader,
        RaftError::Fatal(_) => LocalRaftError::Stopped(error.to_string()),
    }
}

/// Guard of a handover. Until it is dropped, this leader sends no heartbeats (see
/// [`super::quorum_watch`]) and accepts no commands, so that the others elect a leader.
struct LeadershipHandover<'a>(&'a Group);

impl<'a> LeadershipHandover<'a> {
    fn begin(group: &'a Group) -> Self {
        group.channels.stepping_down.send_replace(true);
        Self(group)
    }
}

impl Drop for LeadershipHandover<'_> {
    fn drop(&mut self) {
        self.0.channels.stepping_down.send_replace(false);
    }
}
