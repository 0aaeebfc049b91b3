//! Service of one accepted or dialled connection: its streams, its datagrams and its end.

use std::sync::Arc;

use bytes::Bytes;
use muster_types::NodeId;
use muster_types::error::chain;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::endpoint::auth::{Rejection, SessionAuthorizer, SessionService};
use crate::endpoint::rpc::guard::{HelloGuard, NodeGuard};
use crate::endpoint::rpc::http2::{Authorize, Guarded, Limits, Service, Tasks, serve, stream};
use crate::endpoint::tls::trust::Trust;

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
    pub(crate) fn hello<A: SessionAuthorizer>(service: Guarded<HelloGuard<A>>) -> Self {
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

impl<A: SessionAuthorizer> Connected for HelloGuard<A> {
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

/// Services and channels for connections of either ALPN.
#[derive(Debug, Clone)]
pub(crate) struct Services<A> {
    pub(crate) hello: SessionService<A>,
    pub(crate) node: Service,
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) datagram_sink: DatagramSink,
    /// Receives rejected calls of members.
    pub(crate) rejections: Option<mpsc::Sender<Rejection>>,
}
