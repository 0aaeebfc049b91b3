//! Handle to the Raft group: proposes commands and reads the replicated state on any control-plane
//! node. Calls that need the leader are forwarded to it. Every call has a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_messages::node::{
    ProposeReply, ProposeRequest, ReadIndexRequest, propose_reply, read_index_reply,
};
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::Endpoint;
use muster_types::NodeId;
use muster_types::wire::MAX_MESSAGE;
use openraft::ChangeMembers;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::info;

use super::codec::{decode, encode};
use super::quorum::STUCK_AFTER;
use super::types::{Metrics, Raft};
use crate::clock;
use muster_state::command::Remove;
use muster_state::{ClusterState, Command, Outcome, Refusal, RefusalKind, TimestampedCommand};
use muster_storage::DiskStall;

/// Timeout of a proposal or a read, including an election.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// Timeout of one attempt at one leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to wait for the reply of a leader that was deposed. If it is alive, its successor commits
/// the entries it had started, and it replies within a few round trips.
const DEPOSED_GRACE: Duration = Duration::from_millis(100);

/// The largest command, in bytes of MessagePack. A leader's log refuses to write more than
/// [`muster_storage::MAX_ENTRY`] and its Raft stops, and then the next leader would get the command.
/// The largest command that the state accepts is a founding, below 200 KiB.
pub const MAX_COMMAND: usize = 256 << 10;

/// A leader that has been silent for this long is unreachable: several heartbeats, and allowance
/// for a busy disk.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which a call looks for a leader when the metrics announce no change.
const LEADER_POLL_INTERVAL: Duration = Duration::from_millis(100);

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

/// The result of a command that this node applied as the leader.
#[derive(Debug)]
pub struct AppliedCommand {
    pub outcome: Outcome,
    /// Index of its log entry; 0 if it was refused before it was appended.
    pub index: u64,
}

impl AppliedCommand {
    fn refused(refusal: Refusal) -> Self {
        Self { outcome: Outcome::Refused(refusal), index: 0 }
    }
}

/// The reason why this node did not answer as the leader.
#[derive(Debug)]
pub enum LocalRaftError {
    /// This node is not the leader (any more).
    NotLeader,
    Stopped(String),
}

/// Handle to the Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    me: NodeId,
    raft: Raft,
    endpoint: Endpoint,
    state: watch::Receiver<Arc<ClusterState>>,
    channels: WatchChannels,
    /// Time of the last append from a leader. openraft drops a silent leader only where it may
    /// elect another, so a learner would keep it indefinitely.
    last_append: Arc<watch::Sender<Option<Instant>>>,
    /// Held on this node while the set of voters changes.
    membership_lock: Arc<Mutex<()>>,
}

/// Channels between the handle and the quorum watch ([`super::quorum_watch`]).
#[derive(Debug, Clone)]
pub(super) struct WatchChannels {
    /// Published by the watch.
    pub leadership: watch::Receiver<Leadership>,
    /// The stall of the node's store.
    pub stall: DiskStall,
    /// Read by the watch. True while this node steps down and another is yet to be elected. See
    /// [`LeadershipHandover`].
    pub stepping_down: watch::Sender<bool>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Leadership of this node, as published by the quorum watch ([`super::quorum_watch`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct Leadership {
    /// True if this node leads in name only: no majority has acknowledged it for too long.
    pub stepped_down: bool,
    /// The last time that this node knew a leader with a majority.
    pub last_leader_at: Instant,
    /// Time since openraft last published metrics, which it does at every tick. Time in which this
    /// process was paused does not count.
    pub core_silence: Duration,
}

impl Default for Leadership {
    fn default() -> Self {
        Self { stepped_down: false, last_leader_at: Instant::now(), core_silence: Duration::ZERO }
    }
}

impl Group {
    pub(super) fn new(
        me: NodeId,
        raft: Raft,
        endpoint: Endpoint,
        state: watch::Receiver<Arc<ClusterState>>,
        channels: WatchChannels,
    ) -> Self {
        let (last_append, membership_lock) = (Arc::default(), Arc::default());
        Self { me, raft, endpoint, state, channels, last_append, membership_lock }
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The state that this node has applied. It may be behind the leader: call [`Self::catch_up`]
    /// first if a decision depends on it.
    pub fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    /// A watch of the state that changes with every applied command.
    pub fn watch_state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    pub fn metrics(&self) -> watch::Receiver<Metrics> {
        self.raft.metrics()
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

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
    pub fn on_append(&self) {
        self.last_append.send_replace(Some(Instant::now()));
    }

    /// Returns whether this node leads with a majority, or receives appends from a leader that
    /// does.
    pub fn has_live_leader(&self) -> bool {
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
    pub fn stuck_for(&self) -> Option<Duration> {
        let since =
            self.channels.stall.elapsed().max(self.channels.leadership.borrow().core_silence);
        Some(since).filter(|since| *since >= STUCK_AFTER)
    }

    /// Refuses a peer's message while openraft is blocked: it would be queued in memory without
    /// bound. To Raft this is a lost message.
    pub fn check_accepts_messages(&self) -> Result<(), GroupError> {
        let since = self.channels.leadership.borrow().core_silence;
        if since < STUCK_AFTER { Ok(()) } else { Err(GroupError::Stuck { since }) }
    }

    /// Returns whether this node is a voter of the group, as far as it knows.
    pub fn is_voter(&self) -> bool {
        self.voters().contains(&self.me)
    }

    /// Proposes a command to the leader and returns its outcome. Afterwards [`Self::state`] holds
    /// the change too, unless this node lags too far behind to apply it in time.
    pub async fn propose(&self, command: Command) -> Result<Outcome, GroupError> {
        let encoded = encode(&command);
        if let Some(refusal) = too_large(encoded.len()) {
            return Ok(Outcome::Refused(refusal));
        }
        let mut retry = LeaderRetry::new(self, CALL_TIMEOUT);
        loop {
            let leader = retry.leader().await?;
            let attempt = Box::pin(self.propose_to(leader, &command, &encoded));
            if let Some(AppliedCommand { outcome, index }) = retry.attempt(leader, attempt).await? {
                let deadline = retry.deadline.min(Instant::now() + LEADER_POLL_INTERVAL);
                timeout_at(deadline, self.wait_applied(index)).await.ok(); // it is committed anyway
                return Ok(outcome);
            }
        }
    }

    /// Waits until this node has applied the entry at `index`; `None` if its Raft has ended.
    async fn wait_applied(&self, index: u64) -> Option<()> {
        let mut metrics = self.raft.metrics();
        let applied = metrics.wait_for(|m| m.last_applied.is_some_and(|id| id.index >= index));
        applied.await.ok().map(|_| ())
    }

    async fn propose_to(
        &self,
        leader: NodeId,
        command: &Command,
        encoded: &[u8],
    ) -> Result<AppliedCommand, LocalRaftError> {
        if leader == self.me {
            return self.propose_as_leader(command.clone()).await;
        }
        let request = ProposeRequest { command: encoded.to_vec() };
        let reply = self.client(leader).propose(request).await.map_err(not_answered)?;
        let ProposeReply { outcome, index } = reply.into_inner();
        match outcome {
            Some(propose_reply::Outcome::Applied(bytes)) => {
                let outcome = decode(&bytes, "outcome").map_err(not_answered)?;
                Ok(AppliedCommand { outcome, index })
            }
            Some(propose_reply::Outcome::NotLeader(_)) | None => Err(LocalRaftError::NotLeader),
        }
    }

    /// Proposes a command if this node is the leader.
    pub async fn propose_as_leader(
        &self,
        command: Command,
    ) -> Result<AppliedCommand, LocalRaftError> {
        if !self.is_leader() {
            return Err(LocalRaftError::NotLeader);
        }
        if let Some(refusal) = too_large(encode(&command).len()) {
            return Ok(AppliedCommand::refused(refusal));
        }
        // Until the removal is applied, no other task makes the node a voter again.
        let _membership_lock = match &command {
            Command::Remove(remove) => match self.remove_voter(remove).await? {
                Ok(membership_lock) => Some(membership_lock),
                Err(refusal) => return Ok(AppliedCommand::refused(refusal)),
            },
            _ => None,
        };
        self.write(command).await
    }

    /// Appends a command to the log and waits until it is applied.
    async fn write(&self, command: Command) -> Result<AppliedCommand, LocalRaftError> {
        let now_ms = clock::now_ms();
        match self.raft.client_write(TimestampedCommand { now_ms, command }).await {
            Ok(written) => {
                Ok(AppliedCommand { outcome: written.data, index: written.log_id.index })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(LocalRaftError::NotLeader)
            }
            Err(other) => Err(LocalRaftError::Stopped(other.to_string())),
        }
    }

    /// Waits until this node has applied every write acknowledged before the call: a read of
    /// [`Self::state`] afterwards is linearizable.
    pub async fn catch_up(&self) -> Result<Arc<ClusterState>, GroupError> {
        self.catch_up_within(CALL_TIMEOUT).await
    }

    /// Like [`Self::catch_up`], with the given timeout.
    pub async fn catch_up_within(&self, limit: Duration) -> Result<Arc<ClusterState>, GroupError> {
        let mut retry = LeaderRetry::new(self, limit);
        let index = loop {
            let leader = retry.leader().await?;
            if let Some(index) = retry.attempt(leader, self.read_index_from(leader)).await? {
                break index;
            }
        };
        match timeout_at(retry.deadline, self.wait_applied(index)).await {
            Ok(Some(())) => Ok(self.state()),
            Ok(None) => Err(GroupError::Stopped("it no longer publishes metrics".to_owned())),
            Err(_) => Err(retry.timeout_error()),
        }
    }

    async fn read_index_from(&self, leader: NodeId) -> Result<u64, LocalRaftError> {
        if leader == self.me {
            return self.read_index_as_leader().await;
        }
        let request = ReadIndexRequest {};
        let reply = self.client(leader).read_index(request).await.map_err(not_answered)?;
        match reply.into_inner().outcome {
            Some(read_index_reply::Outcome::Index(index)) => Ok(index),
            Some(read_index_reply::Outcome::NotLeader(_)) | None => Err(LocalRaftError::NotLeader),
        }
    }

    /// Removes a node from the voters before the removal is written. Afterwards no member talks to
    /// the node, and where its vote is needed for the change (two voters become one) the group
    /// would have no leader indefinitely. Changes nothing if the removal would be refused.
    async fn remove_voter(
        &self,
        remove: &Remove,
    ) -> Result<Result<OwnedMutexGuard<()>, Refusal>, LocalRaftError> {
        let (membership_lock, state) = self.lock_membership().await?;
        let voters = self.voters();
        if let Err(refusal) = state.check_removal(remove) {
            return Ok(Err(refusal));
        }
        if !voters.contains(&remove.node) {
            return Ok(Ok(membership_lock));
        }
        if voters.len() == 1 {
            let message = "it is the only Raft voter; wait until `musterctl members` shows \
                           another one, then try again";
            return Ok(Err(Refusal::new(RefusalKind::QuorumAtRisk, message)));
        }
        if remove.node == self.me {
            return Err(self.hand_over().await);
        }
        let removed = ChangeMembers::RemoveVoters(BTreeSet::from([remove.node]));
        match self.raft.change_membership(removed, true).await {
            Ok(_) => Ok(Ok(membership_lock)),
            Err(RaftError::APIError(_)) => Err(LocalRaftError::NotLeader),
            Err(fatal @ RaftError::Fatal(_)) => Err(LocalRaftError::Stopped(fatal.to_string())),
        }
    }

    /// Hands the leadership over to another node. A leader that removed its own vote would be
    /// needed until the others have that change: with two voters, if it dies before, the other one
    /// can never be elected.
    async fn hand_over(&self) -> LocalRaftError {
        info!("handing over leadership before this node is removed");
        let _handover = LeadershipHandover::begin(self);
        let mut metrics = self.raft.metrics();
        let other = metrics.wait_for(|m| m.current_leader.is_some_and(|leader| leader != self.me));
        timeout(ATTEMPT_TIMEOUT, other).await.ok(); // the caller looks for the leader either way
        LocalRaftError::NotLeader
    }

    /// On the leader: locks the set of voters and returns a state in which its whole log is
    /// applied. Otherwise a removal that is in the log and not applied yet could be undone: the
    /// voters controller would find the node in the registry and wait for its vote, which never
    /// comes.
    pub async fn lock_membership(
        &self,
    ) -> Result<(OwnedMutexGuard<()>, Arc<ClusterState>), LocalRaftError> {
        let until = Instant::now() + ATTEMPT_TIMEOUT;
        let not_now = |_| LocalRaftError::NotLeader;
        let membership_lock = timeout_at(until, Arc::clone(&self.membership_lock).lock_owned())
            .await
            .map_err(not_now)?;
        timeout_at(until, self.write(Command::Barrier)).await.map_err(not_now)??;
        Ok((membership_lock, self.state()))
    }

    /// The current voters, as far as this node knows.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let membership = Arc::clone(&self.raft.metrics().borrow().membership_config);
        membership.membership().voter_ids().collect()
    }

    /// The log index that a read must wait for, confirmed by a majority, if this node leads.
    pub async fn read_index_as_leader(&self) -> Result<u64, LocalRaftError> {
        if !self.is_leader() {
            return Err(LocalRaftError::NotLeader);
        }
        match self.raft.get_read_log_id().await {
            Ok((read, _applied)) => Ok(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(_)) => Err(LocalRaftError::NotLeader),
            Err(fatal @ RaftError::Fatal(_)) => Err(LocalRaftError::Stopped(fatal.to_string())),
        }
    }

    fn client(&self, node: NodeId) -> NodeClient<muster_transport::endpoint::NodeChannel> {
        NodeClient::new(self.endpoint.channel(node))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
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

/// Retry loop that finds a leader that answers, with one overall deadline.
struct LeaderRetry {
    group: Group,
    metrics: watch::Receiver<Metrics>,
    start: Instant,
    deadline: Instant,
    has_failed: bool,
}

impl LeaderRetry {
    fn new(group: &Group, limit: Duration) -> Self {
        let start = Instant::now();
        let metrics = group.raft.metrics();
        Self { group: group.clone(), metrics, start, deadline: start + limit, has_failed: false }
    }

    fn timeout_error(&self) -> GroupError {
        match self.group.stuck_for() {
            Some(since) => GroupError::Stuck { since },
            None => GroupError::NoLeader { waited: self.start.elapsed() },
        }
    }

    /// Waits for a leader and returns it. After a failed attempt, waits a moment first.
    async fn leader(&mut self) -> Result<NodeId, GroupError> {
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
    async fn attempt<T>(
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

/// Refuses a command that is too large for the log.
fn too_large(length: usize) -> Option<Refusal> {
    let message = || format!("a command of {length} bytes is larger than {MAX_COMMAND}");
    (length > MAX_COMMAND).then(|| Refusal { kind: RefusalKind::Invalid, message: message() })
}

/// A leader that does not answer counts as none: look for a leader again.
fn not_answered(_: tonic::Status) -> LocalRaftError {
    LocalRaftError::NotLeader
}
