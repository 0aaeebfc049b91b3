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

use super::peer::{Lane, PeerConnection, PeerConnectionState};
use super::request::EndpointRequest;
use crate::endpoint::rpc::deadline::Deadline;

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
    state: Arc<OnceCell<watch::Receiver<PeerConnectionState>>>,
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
