//! The gRPC server of the operator API. The group's state, not this module, lists the operators' keys.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::tls;
use muster_services::operator::operator_server::OperatorServer;
use muster_transport::endpoint::{Trust, WatchedTrust};
use muster_types::PublicKey;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{OperatorContext, OperatorService};
use crate::api::listen;
use crate::ports::OperatorPort;
use crate::raft::Group;

/// Serves operators until `stop`. Waits for the port while it is busy.
pub async fn serve(
    port: OperatorPort,
    group: Group,
    trust: watch::Receiver<Arc<Trust>>,
    context: OperatorContext,
    stop: CancellationToken,
) {
    let Some(listener) = stop.run_until_cancelled(port.into_listener()).await else { return };
    let is_operator = move |key: &PublicKey| group.state().operator(key).is_some();
    let tls = tls::operator_server_config(Arc::new(WatchedTrust(trust)), is_operator);
    let (ready, connections) = mpsc::channel(16);
    let service = OperatorServer::new(OperatorService::new(Arc::new(context)));
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(64)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled());
    let accepted = listen::listen(listener, Arc::new(tls), ready, stop.clone());
    if let (Err(error), ()) = tokio::join!(served, accepted) {
        error!(%error, "operator API server failed");
    }
}
