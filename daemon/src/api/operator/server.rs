//! The server of the operator API.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::tls::{self, Credentials, TrustSource};
use muster_services::operator::operator_server::OperatorServer;
use muster_transport::endpoint::Trust;
use muster_types::{NodeId, PublicKey};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::api::listen;
use crate::api::operator::{OperatorContext, OperatorService};
use crate::raft::Group;

/// TLS credentials for operators' connections: always the newest node certificate.
struct CurrentTrust(watch::Receiver<Arc<Trust>>);

impl TrustSource for CurrentTrust {
    fn is_member(&self, node: &NodeId) -> bool {
        self.0.borrow().directory.contains_key(node)
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.borrow().credentials.clone()
    }
}

/// Serves operators until `stop`.
pub(super) async fn serve_operators(
    listener: TcpListener,
    group: Group,
    trust: watch::Receiver<Arc<Trust>>,
    context: OperatorContext,
    stop: CancellationToken,
) {
    let is_operator = move |key: &PublicKey| group.state().operator(key).is_some();
    let tls = tls::operator_server_config(Arc::new(CurrentTrust(trust)), is_operator);
    let (ready, connections) = mpsc::channel(16);
    let service = OperatorServer::new(OperatorService::new(Arc::new(context)));
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(64)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled());
    let accepted = listen::accept(listener, Arc::new(tls), ready, stop.clone());
    if let (Err(error), ()) = tokio::join!(served, accepted) {
        error!(%error, "operator API server failed");
    }
}
