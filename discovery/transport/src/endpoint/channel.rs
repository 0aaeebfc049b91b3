//! Client of one member: a tower service for generated clients. It follows the peer across
//! connections. A call never outlives the deadline that its caller set.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use muster_types::NodeId;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tonic::Status;
use tonic::body::Body;

use super::close::{CloseCode, DisconnectReason};
use super::deadline::Deadline;
use super::http2::{Limits, StreamChannel, Tasks, connect, error_chain, stream};
use super::session_manager::EndpointRequest;

/// Channel for calls to one member, whether reachable now or not. Cheap to create and clone.
///
/// A call to a member without a connection dials it and waits for the outcome. Errors:
/// * UNAVAILABLE, at once when the connection is lost.
/// * UNAUTHENTICATED when the peer rejects this node: it is not in the peer's registry, or its
///   certificate has expired.
/// * `DEADLINE_EXCEEDED` when the request's own timeout (`tonic::Request::set_timeout`) expires.
///
/// Without a timeout, a call to a silent peer fails after about three seconds.
#[derive(Debug, Clone)]
pub struct NodeChannel {
    peer: NodeId,
    lane: Lane,
    inbox: mpsc::Sender<EndpointRequest>,
    state: Arc<OnceCell<watch::Receiver<PeerState>>>,
}

/// Stream of the connection that a call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small calls that must not wait.
    Calls,
    /// Snapshots and other bulk transfers, on a separate stream with lower priority.
    Bulk,
}

/// Connection state of one peer, published by the endpoint's task.
#[derive(Debug, Clone)]
pub(crate) struct PeerState {
    /// Number of failed dials, so that a caller waiting for a dial sees it fail.
    pub(crate) failed_dials: u64,
    pub(crate) link: Result<Arc<PeerConnection>, DisconnectReason>,
}

impl PeerState {
    fn usable(&self) -> Option<&Arc<PeerConnection>> {
        self.link.as_ref().ok().filter(|link| link.is_usable())
    }
}

/// Connection to a member with its client lanes, which open on first use.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    connection: quinn::Connection,
    tasks: Tasks,
    calls: OnceCell<StreamChannel>,
    bulk: OnceCell<StreamChannel>,
}

impl PeerConnection {
    pub(crate) fn new(connection: quinn::Connection, tasks: Tasks) -> Self {
        Self { connection, tasks, calls: OnceCell::new(), bulk: OnceCell::new() }
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    fn is_usable(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    async fn lane(&self, lane: Lane) -> Result<StreamChannel, Status> {
        let (slot, priority) = match lane {
            Lane::Calls => (&self.calls, 1),
            Lane::Bulk => (&self.bulk, 0),
        };
        let open = async || {
            let (send, receive) =
                self.connection.open_bi().await.map_err(|e| {
                    DisconnectReason::of(&e).status(self.connection.remote_address())
                })?;
            send.set_priority(priority).map_err(|e| unavailable(&e))?;
            let sender = connect(stream(send, receive), Limits::NODE, self.tasks.clone())
                .await
                .map_err(|e| unavailable(&e))?;
            Ok::<_, Status>(StreamChannel { sender, connection: self.connection.clone() })
        };
        let call = slot.get_or_try_init(open).await?;
        if call.sender.is_closed() {
            // HTTP/2 failed on a live connection. Close it and dial again rather than repair it.
            CloseCode::ProtocolError.close(&self.connection);
        }
        Ok(call.clone())
    }
}

fn unavailable(error: &dyn std::error::Error) -> Status {
    Status::unavailable(error_chain(error))
}

impl NodeChannel {
    pub(crate) fn new(peer: NodeId, lane: Lane, inbox: mpsc::Sender<EndpointRequest>) -> Self {
        Self { peer, lane, inbox, state: Arc::default() }
    }

    /// Returns the member that this channel calls.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    async fn link(&self) -> Result<Arc<PeerConnection>, Status> {
        let stopped = || Status::unavailable("this node's endpoint has stopped");
        let subscribe = async || {
            let (reply, answer) = oneshot::channel();
            let request = EndpointRequest::Subscribe { peer: self.peer, reply };
            self.inbox.send(request).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())
        };
        let mut state = self.state.get_or_try_init(subscribe).await?.clone();
        let seen = {
            let state = state.borrow_and_update();
            if let Some(link) = state.usable() {
                return Ok(Arc::clone(link));
            }
            state.failed_dials
        };
        self.inbox
            .send(EndpointRequest::Connect { peer: self.peer })
            .await
            .map_err(|_| stopped())?;
        let outcome = state
            .wait_for(|state| state.usable().is_some() || state.failed_dials != seen)
            .await
            .map_err(|_| stopped())?;
        match &outcome.link {
            Ok(link) => Ok(Arc::clone(link)),
            Err(lost) => Err(lost.status(format_args!("node {}", self.peer.short()))),
        }
    }

    async fn send(self, request: http::Request<Body>) -> Result<http::Response<Incoming>, Status> {
        let link = self.link().await?;
        link.lane(self.lane).await?.send(request).await
    }
}

impl tower::Service<http::Request<Body>> for NodeChannel {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = Deadline::of(request.headers());
        Box::pin(deadline.enforce(self.peer.short(), self.clone().send(request)))
    }
}
