//! The node API: calls between members. The endpoint checks that the caller is a member and that
//! its role may make the call, before it reads a byte of the request. Calls of the control plane
//! are checked here once more.

#[cfg(test)]
mod fuzz;
mod view_stream;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures::{Stream, StreamExt as _, stream};
use muster_messages::node::{
    ClusterView, ForwardReply, ForwardRequest, NotLeader, ProposeReply, ProposeRequest,
    RaftMessage, ReadIndexReply, ReadIndexRequest, ReportReply, ReportRequest, SnapshotChunk,
    WatchRequest, propose_reply, read_index_reply,
};
use muster_services::node::node_server::Node;
use muster_transport::endpoint::Caller;
use muster_transport::limits::{ConcurrencyLimiter, RateLimiter};
use muster_types::{NodeId, PublicKey, Role};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};

use view_stream::{ViewCache, Watcher};

use super::node_status::NodeStatusProvider;
use crate::api::status::unavailable;
use crate::raft::codec::{decode, encode};
use crate::raft::{AppliedCommand, Group, LocalRaftError, SnapshotHeader};
use muster_state::command::Report;
use muster_state::{Command, EtcdReport};
use muster_storage::MAX_SNAPSHOT;

/// Maximum burst of reports of one member, and the interval after which one more is allowed. A
/// member reports when its addresses change, and repeats a rejected report every few seconds. A
/// compromised worker must not fill the Raft log with reports.
const REPORT_BURST: u32 = 10;
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of view streams of one member. A member needs one. Streams of its earlier
/// processes end when their sessions are found dead.
const MAX_STREAMS: usize = 8;

/// Time limit for a call to wait for this node's Raft to start.
const RAFT_START_TIMEOUT: Duration = Duration::from_millis(500);

/// Time limit for the next piece of a snapshot: a stalled sender must not block other senders.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream of replies.
type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service. A worker has no Raft group and answers only `Forward`.
#[derive(Debug, Clone)]
pub struct NodeService {
    node_status: Arc<NodeStatusProvider>,
    /// Allows one incoming snapshot at a time: each may have [`MAX_SNAPSHOT`] bytes.
    snapshot_slot: Arc<Semaphore>,
    report_limiter: Arc<Mutex<RateLimiter<NodeId>>>,
    stream_limiter: ConcurrencyLimiter<NodeId>,
    view_cache: Arc<ViewCache>,
}

impl NodeService {
    /// Creates the service.
    pub fn new(node_status: Arc<NodeStatusProvider>) -> Self {
        Self {
            node_status,
            snapshot_slot: Arc::new(Semaphore::new(1)),
            report_limiter: Arc::new(Mutex::new(RateLimiter::new(
                REPORT_BURST,
                REPORT_INTERVAL,
                muster_state::limits::MAX_MEMBERS,
            ))),
            stream_limiter: ConcurrencyLimiter::per_key(MAX_STREAMS),
            view_cache: Arc::default(),
        }
    }

    /// Returns the group. A founder may be called some milliseconds before its Raft has started.
    /// Waits for that, so that the first vote request need not be repeated.
    async fn group(&self) -> Result<Group, Status> {
        let none = || Status::unavailable("this node does not run Raft; call a control-plane node");
        if self.node_status.role == Role::Worker {
            return Err(none());
        }
        let mut status = self.node_status.status.clone();
        let started = timeout(RAFT_START_TIMEOUT, status.wait_for_group()).await;
        started.ok().flatten().ok_or_else(none)
    }

    /// Rejects an operator whose role may not make the call. A worker has no list of operators: there
    /// the control-plane node that forwards has checked it.
    fn check_role(&self, operator: &PublicKey, method: &str) -> Result<(), Status> {
        match (self.node_status.status.group(), self.node_status.role) {
            (Some(group), _) => super::operator::check_role(&group.state(), operator, method),
            (None, Role::Worker) => Ok(()),
            (None, Role::ControlPlane) => {
                Err(Status::unavailable("this node's Raft has not started; retry later"))
            }
        }
    }

    /// Returns the group if the caller is a control-plane node.
    async fn raft<T>(&self, request: &Request<T>) -> Result<Group, Status> {
        Caller::of(request)?.require_control_plane()?;
        let group = self.group().await?;
        group.check_accepts_messages().map_err(|error| unavailable(&error))?;
        Ok(group)
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn append_entries(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let group = self.raft(&request).await?;
        let body = group.receive_append(&request.into_inner().body).await?;
        Ok(Response::new(RaftMessage { body }))
    }

    async fn request_vote(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let group = self.raft(&request).await?;
        let body = group.receive_vote_request(&request.into_inner().body).await?;
        Ok(Response::new(RaftMessage { body }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let group = self.raft(&request).await?;
        let mut pieces = request.into_inner();
        let first = next(&mut pieces)
            .await?
            .ok_or_else(|| Status::invalid_argument("empty snapshot stream"))?;
        let header: SnapshotHeader = decode(&first.header, "snapshot header")?;
        if let Some(body) = group.reject_snapshot(&header) {
            return Ok(Response::new(RaftMessage { body }));
        }
        let _permit = self
            .snapshot_slot
            .try_acquire()
            .map_err(|_| Status::unavailable("another snapshot is being received"))?;
        let mut body = BytesMut::from(first.body.as_slice());
        while let Some(piece) = next(&mut pieces).await? {
            if body.len() + piece.body.len() > MAX_SNAPSHOT {
                return Err(Status::resource_exhausted("snapshot too large"));
            }
            body.extend_from_slice(&piece.body);
        }
        let body = group.receive_snapshot(header, body.freeze()).await;
        Ok(Response::new(RaftMessage { body }))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReply>, Status> {
        let group = self.raft(&request).await?;
        let command: Command = decode(&request.into_inner().command, "command")?;
        let (outcome, index) = match group.propose_as_leader(command).await {
            Ok(AppliedCommand { outcome, index }) => {
                (propose_reply::Outcome::Applied(encode(&outcome)), index)
            }
            Err(error) => (propose_reply::Outcome::NotLeader(not_leader(error)?), 0),
        };
        Ok(Response::new(ProposeReply { outcome: Some(outcome), index }))
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        let outcome = match self.raft(&request).await?.read_index_as_leader().await {
            Ok(index) => read_index_reply::Outcome::Index(index),
            Err(error) => read_index_reply::Outcome::NotLeader(not_leader(error)?),
        };
        Ok(Response::new(ReadIndexReply { outcome: Some(outcome) }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportReply>, Status> {
        let node = Caller::of(&request)?.node_id;
        let now = Instant::now().into_std();
        if !self
            .report_limiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_acquire(node, now)
        {
            return Err(Status::resource_exhausted(
                "too many reports from this member; retry later",
            ));
        }
        let group = self.group().await?;
        let ReportRequest { addresses, version, etcd } = request.into_inner();
        let etcd: Option<EtcdReport> =
            if etcd.is_empty() { None } else { Some(decode(&etcd, "etcd report")?) };
        let addresses = muster_types::address::parse_addresses(&addresses);
        let config_version = group.state().config_version();
        let report = Report { node, addresses, version, config_version, etcd };
        // A lagging state may not know this member yet, or hold its old entry. Such a state must
        // not decide that a report changes nothing.
        let is_news = group.state().would_change(&report)
            || group.catch_up().await.map_err(|e| unavailable(&e))?.would_change(&report);
        if is_news {
            let outcome =
                group.propose(Command::Report(report)).await.map_err(|e| unavailable(&e))?;
            outcome
                .into_result()
                .map_err(|refusal| Status::failed_precondition(refusal.message))?;
        }
        Ok(Response::new(ReportReply {}))
    }

    type WatchStream = ReplyStream<ClusterView>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let node = Caller::of(&request)?.node_id;
        let permit = self
            .stream_limiter
            .try_acquire(node)
            .ok_or_else(|| Status::resource_exhausted("too many watch streams of this member"))?;
        let watcher = Watcher::new(self.group().await?.watch_state(), Arc::clone(&self.view_cache));
        let views = stream::unfold((watcher, permit), async |(mut watcher, permit)| {
            let view = watcher.next().await?;
            Some((Ok(view), (watcher, permit)))
        });
        Ok(Response::new(Box::pin(views)))
    }

    type ForwardStream = ReplyStream<ForwardReply>;

    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Caller::of(&request)?.require_control_plane()?;
        let ForwardRequest { method, request, operator } = request.into_inner();
        let operator = PublicKey::try_from(operator.as_slice())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.check_role(&operator, &method)?;
        let answers = self.node_status.call(&method, &request)?;
        let replies = answers.map(|answer| answer.map(|response| ForwardReply { response }));
        Ok(Response::new(Box::pin(replies)))
    }
}

/// Reads the next piece of a snapshot.
async fn next(pieces: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    timeout(PIECE_TIMEOUT, pieces.message()).await.map_err(|_| {
        Status::deadline_exceeded("timed out waiting for the next piece of the snapshot")
    })?
}

/// Converts the error of a node that does not lead. The caller then tries another node.
fn not_leader(error: LocalRaftError) -> Result<NotLeader, Status> {
    match error {
        LocalRaftError::NotLeader => Ok(NotLeader {}),
        LocalRaftError::Stopped(why) => {
            Err(Status::unavailable(format!("Raft has stopped: {why}")))
        }
    }
}
