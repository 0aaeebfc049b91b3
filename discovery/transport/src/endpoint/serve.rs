//! Service of one accepted or dialled connection: its streams, its datagrams and its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::close::{Close, Lost};
use super::guard::{HelloGuard, NodeGuard};
use super::http2::{Admit, Guarded, Limits, Service, Tasks, chain, serve, stream};
use super::pulse::{Counters, Pulse};
use super::transport::{HELLO_IDLE, LOOK, UNPROVEN, silent_looks};
use crate::hello::{Refused, Session, Standing};

/// Time that a denied session stays open, so that the reply reaches the peer.
const DENIED: Duration = Duration::from_millis(200);

/// Destination of members' datagrams: the sender of the latest receiver that was requested.
pub(crate) type Mailbox = watch::Receiver<Option<Inlet>>;
pub(crate) type Inlet = mpsc::Sender<(NodeId, Bytes)>;

/// Connection being served. Dropping it ends all its tasks.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) connection: quinn::Connection,
    pub(crate) tasks: Tasks,
    _end: DropGuard,
}

impl Served {
    fn new(connection: quinn::Connection) -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        Self { connection, tasks, _end: stop.drop_guard() }
    }

    /// Serves a member's connection: calls with [`Limits::NODE`], and datagrams.
    pub(crate) fn node(service: Guarded<NodeGuard>, mailbox: Mailbox) -> Self {
        let NodeGuard { peer, connection, .. } = &service.guard;
        let (from, connection) = (peer.node_id, connection.clone());
        let served = Self::new(connection.clone());
        served.run(forward_datagrams(from, connection, mailbox));
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
pub(crate) trait Connected: Admit {
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
                tracing::debug!(%remote, error = chain(&error), "stream ended");
            }
        });
    }
}

async fn forward_datagrams(from: NodeId, connection: quinn::Connection, mailbox: Mailbox) {
    while let Ok(datagram) = connection.read_datagram().await {
        // No receiver, or a full one: the datagram is lost, as datagrams may be.
        let delivered = mailbox
            .borrow()
            .as_ref()
            .is_some_and(|mailbox| mailbox.try_send((from, datagram)).is_ok());
        if !delivered {
            tracing::trace!(%from, "datagram not delivered");
        }
    }
}

/// Outcome of the proof phase of a hello session.
#[derive(Debug)]
pub(crate) enum Probation {
    Proven,
    /// Closed; `denied` is true if a wrong proof was the cause.
    Ended {
        denied: bool,
    },
}

/// Waits until the session proves the token; closes it on timeout or a wrong proof.
pub(crate) async fn probation(connection: quinn::Connection, session: Session) -> Probation {
    let mut standing = session.standing();
    let decided = standing.wait_for(|standing| *standing != Standing::Unproven);
    let standing = tokio::select! {
        biased;
        _ = connection.closed() => return Probation::Ended { denied: false },
        decided = tokio::time::timeout(UNPROVEN, decided) => match decided {
            Ok(Ok(standing)) => standing.clone(),
            Ok(Err(_)) | Err(_) => Standing::Unproven,
        },
    };
    match standing {
        Standing::Proven(_) => return Probation::Proven,
        Standing::Unproven => Close::Unproven.close(&connection),
        Standing::Denied => linger(&connection).await,
    }
    Probation::Ended { denied: standing == Standing::Denied }
}

/// Waits until an authenticated session ends, is denied later or has been idle too long.
pub(crate) async fn until_hello_ends(connection: quinn::Connection, session: Session) -> Lost {
    let (mut standing, mut calls) = (session.standing(), session.calls());
    loop {
        let is_denied = tokio::select! {
            biased;
            reason = connection.closed() => return Lost::of(&reason),
            _ = standing.wait_for(|standing| *standing == Standing::Denied) => true,
            called = tokio::time::timeout(HELLO_IDLE, calls.changed()) => {
                if called.is_ok() {
                    continue;
                }
                false
            }
        };
        if is_denied {
            linger(&connection).await;
            return Lost::because("a later proof was wrong");
        }
        Close::Done.close(&connection);
        return Lost::because("the session was idle");
    }
}

/// Closes a silent connection, for connections that [`super::links`] does not watch.
pub(crate) async fn close_when_silent(connection: quinn::Connection) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pulse = Pulse::new(Counters::of(&connection));
    while connection.close_reason().is_none() {
        look.tick().await;
        if pulse.look(Counters::of(&connection)) >= silent_looks(connection.rtt()) {
            Close::Silent.close(&connection);
        }
    }
}

/// Waits until a member's connection ends.
pub(crate) async fn until_lost(connection: quinn::Connection) -> Lost {
    Lost::of(&connection.closed().await)
}

/// Closes the connection after a delay that lets the last reply out.
async fn linger(connection: &quinn::Connection) {
    if tokio::time::timeout(DENIED, connection.closed()).await.is_err() {
        Close::Denied.close(connection);
    }
}

/// Services and channels for connections of either ALPN.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) hello: Service,
    pub(crate) node: Service,
    pub(crate) trust: watch::Receiver<Arc<super::trust::Trust>>,
    pub(crate) mailbox: Mailbox,
    /// Receives rejected calls of members.
    pub(crate) refusals: Option<mpsc::Sender<Refused>>,
}
