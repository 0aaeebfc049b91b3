//! Service of one accepted or dialled connection: its streams, its datagrams and its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::close::{CloseCode, DisconnectReason};
use super::dead_peer::{Counters, DeadPeerDetector};
use super::guard::{HelloGuard, NodeGuard};
use super::http2::{Authorize, Guarded, Limits, Service, Tasks, error_chain, serve, stream};
use super::transport::{CHECK_INTERVAL, HELLO_IDLE_TIMEOUT, PROOF_TIMEOUT, max_silent_samples};
use crate::hello::{AuthState, Rejection, Session};

/// Time that a denied session stays open, so that the reply reaches the peer.
const DENIED_CLOSE_DELAY: Duration = Duration::from_millis(200);

/// Destination of members' datagrams: the sender of the latest receiver that was requested.
pub(crate) type DatagramSink = watch::Receiver<Option<DatagramSender>>;
pub(crate) type DatagramSender = mpsc::Sender<(NodeId, Bytes)>;

/// Connection being served. Dropping it ends all its tasks.
#[derive(Debug)]
pub(crate) struct ServedConnection {
    pub(crate) connection: quinn::Connection,
    pub(crate) tasks: Tasks,
    _end: DropGuard,
}

impl ServedConnection {
    fn new(connection: quinn::Connection) -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        Self { connection, tasks, _end: stop.drop_guard() }
    }

    /// Serves a member's connection: calls with [`Limits::NODE`], and datagrams.
    pub(crate) fn node(service: Guarded<NodeGuard>, datagram_sink: DatagramSink) -> Self {
        let NodeGuard { peer, connection, .. } = &service.guard;
        let (from, connection) = (peer.node_id, connection.clone());
        let served = Self::new(connection.clone());
        served.run(forward_datagrams(from, connection, datagram_sink));
        served.run(accept_streams(service, Limits::NODE, served.tasks.clone()));
        served
    }

    /// Serves a hello connection: calls with [`Limits::HELLO`].
    pub(crate) fn hello(service: Guarded<HelloGuard>) -> Self {
        let served = Self::new(service.guard.connection.clone());
        served.run(accept_streams(service, Limits::HELLO, served.tasks.clone()));
        served
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        hyper::rt::Executor::execute(&self.tasks, task);
    }
}

/// Guard that knows its connection.
pub(crate) trait Connected: Authorize {
    fn connection(&self) -> &quinn::Connection;
}

impl Connected for NodeGuard {
    fn connection(&self) -> &quinn::Connection {
        &self.connection
    }
}

impl Connected for HelloGuard {
    fn connection(&self) -> &quinn::Connection {
        &self.connection
    }
}

async fn accept_streams<A: Connected>(service: Guarded<A>, limits: Limits, tasks: Tasks) {
    let connection = service.guard.connection().clone();
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (service, tasks) = (service.clone(), tasks.clone());
        let executor = tasks.clone();
        let remote = connection.remote_address();
        hyper::rt::Executor::execute(&executor, async move {
            if let Err(error) = serve(stream(send, receive), service, limits, tasks).await {
                tracing::debug!(%remote, error = error_chain(&error), "stream ended");
            }
        });
    }
}

async fn forward_datagrams(
    from: NodeId,
    connection: quinn::Connection,
    datagram_sink: DatagramSink,
) {
    while let Ok(datagram) = connection.read_datagram().await {
        // No receiver, or a full one: the datagram is lost, as datagrams may be.
        let delivered = datagram_sink
            .borrow()
            .as_ref()
            .is_some_and(|sender| sender.try_send((from, datagram)).is_ok());
        if !delivered {
            tracing::trace!(%from, "datagram not delivered");
        }
    }
}

/// Outcome of the proof phase of a hello session.
#[derive(Debug)]
pub(crate) enum ProofOutcome {
    Authenticated,
    /// Closed; `denied` is true if a wrong proof was the cause.
    Closed {
        denied: bool,
    },
}

/// Waits until the session proves the token; closes it on timeout or a wrong proof.
pub(crate) async fn await_proof(connection: quinn::Connection, session: Session) -> ProofOutcome {
    let mut state = session.auth_state();
    let changed = state.wait_for(|state| *state != AuthState::Pending);
    let state = tokio::select! {
        biased;
        _ = connection.closed() => return ProofOutcome::Closed { denied: false },
        changed = tokio::time::timeout(PROOF_TIMEOUT, changed) => match changed {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => AuthState::Pending,
        },
    };
    match state {
        AuthState::Authenticated(_) => return ProofOutcome::Authenticated,
        AuthState::Pending => CloseCode::ProofTimeout.close(&connection),
        AuthState::Denied => close_after_flush(&connection).await,
    }
    ProofOutcome::Closed { denied: state == AuthState::Denied }
}

/// Waits until an authenticated session ends, is denied later or has been idle too long.
pub(crate) async fn until_hello_ends(
    connection: quinn::Connection,
    session: Session,
) -> DisconnectReason {
    let (mut state, mut calls) = (session.auth_state(), session.calls());
    loop {
        let is_denied = tokio::select! {
            biased;
            reason = connection.closed() => return DisconnectReason::of(&reason),
            _ = state.wait_for(|state| *state == AuthState::Denied) => true,
            called = tokio::time::timeout(HELLO_IDLE_TIMEOUT, calls.changed()) => {
                if called.is_ok() {
                    continue;
                }
                false
            }
        };
        if is_denied {
            close_after_flush(&connection).await;
            return DisconnectReason::new("a later proof was wrong");
        }
        CloseCode::Done.close(&connection);
        return DisconnectReason::new("the session was idle");
    }
}

/// Closes a silent connection, for connections that [`super::connections`] does not watch.
pub(crate) async fn close_when_silent(connection: quinn::Connection) {
    let mut check_timer = tokio::time::interval(CHECK_INTERVAL);
    check_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut detector = DeadPeerDetector::new(Counters::of(&connection));
    while connection.close_reason().is_none() {
        check_timer.tick().await;
        if detector.sample(Counters::of(&connection)) >= max_silent_samples(connection.rtt()) {
            CloseCode::Silent.close(&connection);
        }
    }
}

/// Waits until a member's connection ends.
pub(crate) async fn until_closed(connection: quinn::Connection) -> DisconnectReason {
    DisconnectReason::of(&connection.closed().await)
}

/// Closes the connection after a delay that lets the last reply out.
async fn close_after_flush(connection: &quinn::Connection) {
    if tokio::time::timeout(DENIED_CLOSE_DELAY, connection.closed()).await.is_err() {
        CloseCode::Denied.close(connection);
    }
}

/// Services and channels for connections of either ALPN.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) hello: Service,
    pub(crate) node: Service,
    pub(crate) trust: watch::Receiver<Arc<super::trust::Trust>>,
    pub(crate) datagram_sink: DatagramSink,
    /// Receives rejected calls of members.
    pub(crate) rejections: Option<mpsc::Sender<Rejection>>,
}
