//! HTTP/2 over one bidirectional QUIC stream, either end: gRPC for tonic without tonic's transport.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Limited;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_types::error::chain;
use tokio::io::Join;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::deadline::Deadline;
use crate::endpoint::close::DisconnectReason;

/// One stream, in the form that HTTP/2 needs.
pub(crate) type Stream = TokioIo<Join<quinn::RecvStream, quinn::SendStream>>;

/// Sending half of a client connection: cheap to clone, one per lane.
pub(crate) type Sender = hyper::client::conn::http2::SendRequest<Body>;

pub(crate) fn stream(send: quinn::SendStream, receive: quinn::RecvStream) -> Stream {
    TokioIo::new(tokio::io::join(receive, send))
}

/// Runs the background tasks of HTTP/2 and ends them with the connection.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop }
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        // The handle is not needed: the token ends the task.
        drop(self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(task)));
    }
}

/// Limits that HTTP/2 grants the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Concurrent calls on one stream.
    calls: u32,
    /// Bytes of one call, and of all calls of a stream, that may wait unread.
    window: u32,
    /// Bytes of a reply that may wait unsent.
    unsent: usize,
}

impl Limits {
    pub(crate) const HELLO: Self = Self { calls: 4, window: 64 << 10, unsent: 64 << 10 };
    pub(crate) const NODE: Self = Self { calls: 128, window: 1 << 20, unsent: 1 << 20 };
}

/// Maximum header size of one call, in bytes: gRPC needs a few hundred.
const MAX_HEADERS: u32 = 8 << 10;

/// Authorises a call before its body is read.
pub(crate) trait Authorize: Clone + Send + Sync + 'static {
    /// Returns the call with its extensions filled in, or the error that rejects it.
    fn authorize<B>(&self, request: http::Request<B>) -> Result<http::Request<B>, Box<Status>>;

    /// Returns the maximum request size in bytes, if it is lower than the service's own limit.
    fn max_request(&self) -> Option<usize> {
        None
    }
}

/// Serves one stream until the peer closes it or the connection is lost.
pub(crate) async fn serve<A: Authorize>(
    io: Stream,
    service: Guarded<A>,
    limits: Limits,
    tasks: Tasks,
) -> Result<(), hyper::Error> {
    hyper::server::conn::http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls)
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window)
        .max_send_buf_size(limits.unsent)
        .max_header_list_size(MAX_HEADERS)
        .max_frame_size(16 << 10)
        .serve_connection(io, service)
        .await
}

/// Opens the client end. The connection runs in `tasks` and ends when the last sender is dropped.
pub(crate) async fn connect(io: Stream, limits: Limits, tasks: Tasks) -> hyper::Result<Sender> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window)
        .max_send_buf_size(limits.unsent)
        .max_header_list_size(MAX_HEADERS)
        .max_frame_size(16 << 10)
        .handshake(io)
        .await?;
    hyper::rt::Executor::execute(&tasks, connection);
    Ok(sender)
}

/// Handler of an ALPN's calls: a generated gRPC server.
pub type Service = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Wraps a generated gRPC server, with its message limits set, for [`crate::endpoint::EndpointTask::run`].
pub fn service<S>(server: S) -> Service
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(server)
}

/// Service of an ALPN behind the authorisation of each call.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<A> {
    pub(crate) service: Service,
    pub(crate) guard: A,
    /// Maximum time of one call until its reply begins.
    pub(crate) timeout: Option<Duration>,
}

type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<A: Authorize> hyper::service::Service<http::Request<Incoming>> for Guarded<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture<Infallible>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let request = match self.guard.authorize(request) {
            Ok(request) => request,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let max_request = self.guard.max_request();
        let request = request.map(|body| match max_request {
            Some(max) => Body::new(Limited::new(body, max)),
            None => Body::new(body),
        });
        let answer = self.service.clone().call(request);
        let Some(timeout) = self.timeout else { return Box::pin(answer) };
        Box::pin(async move {
            tokio::time::timeout(timeout, answer)
                .await
                .unwrap_or_else(|_| Ok(Status::deadline_exceeded("").into_http()))
        })
    }
}

/// Session as a tower service, for generated clients. Its errors are statuses; a lost session is
/// UNAVAILABLE.
#[derive(Debug, Clone)]
pub struct StreamChannel {
    pub(crate) sender: Sender,
    pub(crate) connection: quinn::Connection,
}

impl StreamChannel {
    /// Sends a call without a deadline.
    pub(crate) async fn send(
        mut self,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Incoming>, Status> {
        make_absolute(&mut request);
        self.sender.send_request(request).await.map_err(|e| Self::failed(&self.connection, &e))
    }

    /// Returns the reason for which the connection ended, as a status.
    fn failed(connection: &quinn::Connection, error: &hyper::Error) -> Status {
        connection
            .close_reason()
            .map_or_else(
                || DisconnectReason::new(chain(error)),
                |reason| DisconnectReason::of(&reason),
            )
            .status(connection.remote_address())
    }
}

/// Sets the scheme and authority that HTTP/2 requires.
fn make_absolute(request: &mut http::Request<Body>) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    parts.authority = Some(http::uri::Authority::from_static("muster.internal"));
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

impl tower::Service<http::Request<Body>> for StreamChannel {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // A lost connection shows in the call, which can report why.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = Deadline::of(request.headers());
        let remote = self.connection.remote_address();
        Box::pin(deadline.enforce(remote, self.clone().send(request)))
    }
}
