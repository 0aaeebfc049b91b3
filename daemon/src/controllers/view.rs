//! Streams the cluster view from a control-plane node to this worker and applies it to the
//! directory. When the stream ends, connects to the next node. Retries until stopped.

use std::sync::Arc;
use std::time::Duration;

use muster_gossip::LivenessView;
use muster_messages::node::{View, WatchRequest};
use muster_pki::CertificateDer;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{Endpoint, Trust};
use muster_types::NodeId;
use muster_types::wire::MAX_MESSAGE;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::directory::with_gossip;
use super::pace;
use super::report::control_planes;
use crate::keeper::Keeper;
use crate::membership::Certified;
use crate::wire;

/// Time limit for a control-plane node to send its first view.
const FIRST: Duration = Duration::from_secs(3);

/// Delay before the next control-plane node is tried.
const RETRY: Duration = Duration::from_millis(500);

/// The latest cluster view of a worker. `None` before the first one.
pub type Told = Option<Arc<View>>;

/// Watches the cluster view on a worker.
#[derive(Debug)]
pub struct Window {
    /// This node's id.
    pub me: NodeId,
    /// Endpoint to call control-plane nodes with.
    pub endpoint: Endpoint,
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// Liveness and addresses from gossip.
    pub liveness: watch::Receiver<LivenessView>,
    /// Handle to the trust store, which the views are applied to.
    pub keeper: Keeper,
    /// Set to true while a control-plane node answers.
    pub in_touch: watch::Sender<bool>,
    /// Receives each accepted view.
    pub told: watch::Sender<Told>,
}

impl Window {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // Workers start with different control-plane nodes.
        let mut turn = usize::from(self.me.as_bytes()[0]);
        while !stop.is_cancelled() {
            let peers = control_planes(&self.trust.borrow());
            if let Some(peer) = peers.get(turn % peers.len().max(1)) {
                let watched = stop.run_until_cancelled(self.watch(*peer)).await;
                if let Some(Err(status)) = watched {
                    debug!(peer = %peer.short(), %status, "cluster view stream ended");
                }
                self.in_touch.send_replace(false);
            }
            turn = turn.wrapping_add(1);
            stop.run_until_cancelled(sleep(RETRY)).await;
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
        let (mut views, mut next) = timeout(FIRST, first)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no view in time"))??;
        info!(peer = %peer.short(), "watching the cluster through a control-plane node");
        let mut liveness = self.liveness.clone();
        let mut current = None;
        // True after a change in gossip, which is applied at `again` at the earliest.
        let mut moved = false;
        let mut again = Instant::now();
        let mut is_due = false;
        loop {
            if let Some(view) = next.take() {
                if !self.is_up_to_date(&view) {
                    return Err(tonic::Status::aborted("its view is older than the last one"));
                }
                let view = Arc::new(view);
                self.told.send_replace(Some(Arc::clone(&view)));
                self.in_touch.send_replace(true);
                current = Some(view);
                is_due = true;
            }
            if let Some(view) = current.as_ref().filter(|_| is_due) {
                let seen = liveness.borrow_and_update().clone();
                self.believe(view, &seen).await;
                (moved, is_due) = (false, false);
                again = Instant::now() + pace::pause(view.members.len());
            }
            tokio::select! {
                biased;
                message = views.message() => match message? {
                    Some(view) => next = Some(view),
                    None => return Ok(()),
                },
                () = sleep_until(again), if moved => is_due = true,
                Ok(()) = liveness.changed(), if !moved => moved = true,
            }
        }
    }

    /// Returns true if a view is not older than this worker's admission or its last view. A
    /// control-plane node that has just joined may be behind.
    fn is_up_to_date(&self, view: &View) -> bool {
        let known = self.told.borrow().as_ref().map_or(0, |told| told.index);
        view.index >= known && wire::directory(&view.members).contains_key(&self.me)
    }

    async fn believe(&self, view: &View, seen: &LivenessView) {
        self.keeper.set_directory(with_gossip(wire::directory(&view.members), seen)).await;
        let authorities: Vec<CertificateDer<'static>> =
            view.machine_authorities.iter().cloned().map(CertificateDer::from).collect();
        let credentials = self.trust.borrow().credentials.clone();
        if let Some(present) = credentials
            && !authorities.is_empty()
            && present.bundle().certificates() != authorities
        {
            let chain = present.chain().to_vec();
            self.keeper.set_certified(Certified { chain, authorities }).await;
        }
    }
}
