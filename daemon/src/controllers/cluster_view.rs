//! Streams the cluster view from a control-plane node to this worker and applies it to the
//! directory. When the stream ends, connects to the next node. Retries until stopped.

use std::sync::Arc;
use std::time::Duration;

use muster_gossip::LivenessView;
use muster_messages::node::{ClusterView, WatchRequest};
use muster_pki::CertificateDer;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{Endpoint, Trust};
use muster_types::NodeId;
use muster_types::wire::MAX_MESSAGE;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::directory::with_gossip_addresses;
use crate::convert;
use crate::membership::NodeCertificate;
use crate::status::StatusWriter;
use crate::throttle;
use crate::trust_store::TrustStore;

/// Time limit for a control-plane node to send its first view.
const FIRST_VIEW_TIMEOUT: Duration = Duration::from_secs(3);

/// Delay before the next control-plane node is tried.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Watches the cluster view on a worker.
#[derive(Debug)]
pub struct ClusterViewWatcher {
    /// This node's id.
    pub me: NodeId,
    /// Endpoint to call control-plane nodes with.
    pub endpoint: Endpoint,
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// Liveness and addresses from gossip.
    pub liveness: watch::Receiver<LivenessView>,
    /// Handle to the trust store, which the views are applied to.
    pub trust_store: TrustStore,
    /// Publishes each accepted view, and the connectivity.
    pub status: StatusWriter,
}

impl ClusterViewWatcher {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // Workers start with different control-plane nodes.
        let mut next_peer = usize::from(self.me.as_bytes()[0]);
        while !stop.is_cancelled() {
            let peers: Vec<_> = self.trust.borrow().control_plane().map(|(id, _)| *id).collect();
            if let Some(peer) = peers.get(next_peer % peers.len().max(1)) {
                let watched = stop.run_until_cancelled(self.watch(*peer)).await;
                if let Some(Err(status)) = watched {
                    debug!(peer = %peer.short(), %status, "cluster view stream ended");
                }
                self.status.set_connected(false);
            }
            next_peer = next_peer.wrapping_add(1);
            stop.run_until_cancelled(sleep(RETRY_DELAY)).await;
        }
    }

    /// Applies the views of one control-plane node until its stream ends.
    async fn watch(&self, peer: NodeId) -> Result<(), tonic::Status> {
        let mut client =
            NodeClient::new(self.endpoint.channel(peer)).max_decoding_message_size(MAX_MESSAGE);
        let first = async {
            let mut views = client.watch(WatchRequest {}).await?.into_inner();
            let view = views.message().await?;
            Ok::<_, tonic::Status>((views, view))
        };
        let (mut views, mut next) = timeout(FIRST_VIEW_TIMEOUT, first)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no view in time"))??;
        info!(peer = %peer.short(), "watching the cluster through a control-plane node");
        let mut liveness = self.liveness.clone();
        let mut current = None;
        // True after a change in gossip, which is applied at `next_apply` at the earliest.
        let mut gossip_changed = false;
        let mut next_apply = Instant::now();
        let mut is_due = false;
        loop {
            if let Some(view) = next.take() {
                if !self.is_up_to_date(&view) {
                    return Err(tonic::Status::aborted("its view is older than the last one"));
                }
                let view = Arc::new(view);
                self.status.set_cluster_view(Arc::clone(&view));
                self.status.set_connected(true);
                current = Some(view);
                is_due = true;
            }
            if let Some(view) = current.as_ref().filter(|_| is_due) {
                let seen = liveness.borrow_and_update().clone();
                self.apply(view, &seen).await;
                (gossip_changed, is_due) = (false, false);
                next_apply = Instant::now() + throttle::delay(view.members.len());
            }
            tokio::select! {
                biased;
                message = views.message() => match message? {
                    Some(view) => next = Some(view),
                    None => return Ok(()),
                },
                () = sleep_until(next_apply), if gossip_changed => is_due = true,
                Ok(()) = liveness.changed(), if !gossip_changed => gossip_changed = true,
            }
        }
    }

    /// Returns true if a view is not older than this worker's admission or its last view. A
    /// control-plane node that has just joined may be behind.
    fn is_up_to_date(&self, view: &ClusterView) -> bool {
        let cluster_view = self.status.reader().cluster_view();
        let known = cluster_view.map_or(0, |cluster_view| cluster_view.index);
        view.index >= known && convert::directory(&view.members).contains_key(&self.me)
    }

    async fn apply(&self, view: &ClusterView, seen: &LivenessView) {
        self.trust_store
            .set_directory(with_gossip_addresses(convert::directory(&view.members), seen))
            .await;
        let authorities: Vec<CertificateDer<'static>> =
            view.machine_authorities.iter().cloned().map(CertificateDer::from).collect();
        let credentials = self.trust.borrow().credentials.clone();
        if let Some(present) = credentials
            && !authorities.is_empty()
            && present.bundle().certificates() != authorities
        {
            let chain = present.chain().to_vec();
            self.trust_store.set_certificate(NodeCertificate { chain, authorities }).await;
        }
    }
}
