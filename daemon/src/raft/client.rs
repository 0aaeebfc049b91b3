//! Proposals and linearizable reads on any control-plane node. Calls that need the leader are
//! forwarded to it. Every call has a deadline. It knows nothing of what a command does.

use std::sync::Arc;
use std::time::Duration;

use muster_messages::node::{
    ProposeReply, ProposeRequest, ReadIndexRequest, propose_reply, read_index_reply,
};
use muster_services::node::node_client::NodeClient;
use muster_state::{ClusterState, Command, Outcome, Refusal, RefusalKind, TimestampedCommand};
use muster_transport::endpoint::NodeChannel;
use muster_types::NodeId;
use muster_types::wire::MAX_MESSAGE;
use openraft::error::{ClientWriteError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::codec::{decode, encode};
use super::error::{GroupError, LocalRaftError};
use super::group::Group;
use super::retry::{LEADER_POLL_INTERVAL, LeaderRetry};
use crate::clock;

/// Timeout of a proposal or a read, including an election.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// The largest command, in bytes of MessagePack. A leader's log refuses to write more than
/// [`muster_storage::MAX_ENTRY`] and its Raft stops, and then the next leader would get the command.
/// The largest command that the state accepts is a founding, below 200 KiB.
const MAX_COMMAND: usize = 256 << 10;

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

impl Group {
    /// Proposes a command to the leader and returns its outcome. Afterwards [`Self::state`] holds
    /// the change too, unless this node lags too far behind to apply it in time.
    pub async fn propose(&self, command: Command) -> Result<Outcome, GroupError> {
        self.propose_within(command, CALL_TIMEOUT).await
    }

    /// Like [`Self::propose`], with the given timeout.
    pub(crate) async fn propose_within(
        &self,
        command: Command,
        limit: Duration,
    ) -> Result<Outcome, GroupError> {
        let encoded = encode(&command);
        if let Some(refusal) = too_large(encoded.len()) {
            return Ok(Outcome::Refused(refusal));
        }
        let mut retry = LeaderRetry::new(self, limit);
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
        // Held until the command is applied.
        let _membership_lock = match self.prepare_membership(&command).await? {
            Ok(lock) => lock,
            Err(refusal) => return Ok(AppliedCommand::refused(refusal)),
        };
        self.write(command).await
    }

    /// Appends a command to the log and waits until it is applied.
    pub(super) async fn write(&self, command: Command) -> Result<AppliedCommand, LocalRaftError> {
        let now = clock::now_millis();
        match self.raft.client_write(TimestampedCommand { now, command }).await {
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
    pub(crate) async fn catch_up_within(
        &self,
        limit: Duration,
    ) -> Result<Arc<ClusterState>, GroupError> {
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

    /// The log index that a read must wait for, confirmed by a majority, if this node leads.
    pub(crate) async fn read_index_as_leader(&self) -> Result<u64, LocalRaftError> {
        if !self.is_leader() {
            return Err(LocalRaftError::NotLeader);
        }
        match self.raft.get_read_log_id().await {
            Ok((read, _applied)) => Ok(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(_)) => Err(LocalRaftError::NotLeader),
            Err(fatal @ RaftError::Fatal(_)) => Err(LocalRaftError::Stopped(fatal.to_string())),
        }
    }

    fn client(&self, node: NodeId) -> NodeClient<NodeChannel> {
        NodeClient::new(self.endpoint.channel(node))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
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
