//! The client side of a member: a tower service that generated clients run on. It follows the peer
//! from connection to connection; a call never outlives the deadline that its caller set.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use muster_proto::NodeId;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::http2::{Call, Limits, Tasks, chain, connect, stream};
use super::owner::Request;

/// How to call one member, whether or not it can be reached now. Cheap to clone and to make.
///
/// A call to a member without a connection dials it and waits for the outcome. Errors are
/// UNAVAILABLE, at once when the connection is lost, and `DEADLINE_EXCEEDED` when the request's own
/// timeout (`tonic::Request::set_timeout`) has passed; without one a call to a peer that has fallen
/// silent fails after about two seconds.
#[derive(Debug, Clone)]
pub struct NodeChannel {
    peer: NodeId,
    lane: Lane,
    inbox: mpsc::Sender<Request>,
    state: Arc<OnceCell<watch::Receiver<State>>>,
}

/// Which stream of the connection a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small calls that must not wait.
    Calls,
    /// Snapshots and other bulk, on a stream of their own with lower priority.
    Bulk,
}

/// What the owner of the connections publishes about one peer.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Counts the dials that failed, so that who waits for one can tell.
    pub(crate) failed_dials: u64,
    pub(crate) link: Result<Arc<Link>, Arc<str>>,
}

impl State {
    fn usable(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().ok().filter(|link| link.is_usable())
    }
}

/// A connection to a member with its client lanes, opened when first used.
#[derive(Debug)]
pub(crate) struct Link {
    connection: quinn::Connection,
    tasks: Tasks,
    calls: OnceCell<Call>,
    bulk: OnceCell<Call>,
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection, tasks: Tasks) -> Self {
        Self { connection, tasks, calls: OnceCell::new(), bulk: OnceCell::new() }
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    fn is_usable(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    async fn lane(&self, lane: Lane) -> Result<Call, Status> {
        let (slot, priority) = match lane {
            Lane::Calls => (&self.calls, 1),
            Lane::Bulk => (&self.bulk, 0),
        };
        let open = async || {
            let (send, receive) = self.connection.open_bi().await.map_err(|e| unavailable(&e))?;
            send.set_priority(priority).map_err(|e| unavailable(&e))?;
            let sender = connect(stream(send, receive), Limits::NODE, self.tasks.clone())
                .await
                .map_err(|e| unavailable(&e))?;
            Ok::<_, Status>(Call { sender, connection: self.connection.clone() })
        };
        let call = slot.get_or_try_init(open).await?;
        if call.sender.is_closed() {
            // HTTP/2 broke on a live connection. Begin anew rather than repair.
            super::transport::Close::Broken.close(&self.connection);
        }
        Ok(call.clone())
    }
}

fn unavailable(error: &dyn std::error::Error) -> Status {
    Status::unavailable(chain(error))
}

impl NodeChannel {
    pub(crate) fn new(peer: NodeId, lane: Lane, inbox: mpsc::Sender<Request>) -> Self {
        Self { peer, lane, inbox, state: Arc::default() }
    }

    /// The member that this channel calls.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    async fn link(&self) -> Result<Arc<Link>, Status> {
        let stopped = || Status::unavailable("this node's endpoint has stopped");
        let subscribe = async || {
            let (reply, answer) = oneshot::channel();
            let request = Request::Subscribe { peer: self.peer, reply };
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
        self.inbox.send(Request::Demand { peer: self.peer }).await.map_err(|_| stopped())?;
        let outcome = state
            .wait_for(|state| state.usable().is_some() || state.failed_dials != seen)
            .await
            .map_err(|_| stopped())?;
        match &outcome.link {
            Ok(link) => Ok(Arc::clone(link)),
            Err(why) => Err(Status::unavailable(format!("node {}: {why}", self.peer.short()))),
        }
    }

    async fn send(self, request: http::Request<Body>) -> Result<http::Response<Incoming>, Status> {
        let link = self.link().await?;
        link.lane(self.lane).await?.call(request).await
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
        let timeout = timeout_of(request.headers());
        let answer = self.clone().send(request);
        let Some(timeout) = timeout else { return Box::pin(answer) };
        let peer = self.peer;
        Box::pin(async move {
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
                let peer = peer.short();
                let waited = timeout.as_millis();
                Err(Status::deadline_exceeded(format!("node {peer}: no answer in {waited} ms")))
            })
        })
    }
}

/// The caller's deadline, as tonic puts it on the wire (gRPC over HTTP/2, "Timeout").
fn timeout_of(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_that_tonic_writes_is_read() {
        let mut request = tonic::Request::new(());
        request.set_timeout(Duration::from_millis(250));
        let header = request.metadata().get("grpc-timeout").unwrap().to_str().unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("grpc-timeout", header.parse().unwrap());
        assert_eq!(timeout_of(&headers), Some(Duration::from_millis(250)));
        for wrong in ["", "m", "5", "5x", "123456789m", "-1m"] {
            headers.insert("grpc-timeout", wrong.parse().unwrap());
            assert_eq!(timeout_of(&headers), None, "{wrong}");
        }
    }
}
