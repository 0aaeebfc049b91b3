//! The membership check: asks control-plane members if this node is still a member. It also obtains
//! a certificate if this node cannot issue its own. That is so on a worker, and on a founder that
//! missed the installation of the authorities. It uses `muster-hello/1`, where the identity key is
//! enough to authenticate. Only control-plane members that this node knows by key are trusted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_messages::hello::refusal::Reason;
use muster_messages::hello::{RenewRequest, renew_reply};
use muster_pki::leaf::Leaf;
use muster_transport::endpoint::{Endpoint, Trust};
use muster_types::{NodeId, Role};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::clock;
use crate::membership::Membership;
use crate::raft::Group;
use crate::status::StatusWriter;
use crate::trust_store::TrustStore;

/// Interval at which the need for a check is evaluated.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time without contact after which this node asks if it was removed.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two rounds of requests.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Time limit for one peer's reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// Inputs and outputs of the membership check.
#[derive(Debug)]
pub struct MembershipCheck {
    /// This node's id.
    pub me: NodeId,
    /// This node's role.
    pub role: Role,
    /// Endpoint to dial peers with.
    pub endpoint: Endpoint,
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// Connectivity of this node. Set to removed once that is known.
    pub status: StatusWriter,
    /// Handle to the trust store, for renewed credentials.
    pub trust_store: TrustStore,
    /// Addresses of possible peers, in case all members have moved at once.
    pub hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
}

/// Result of asking the members.
enum CheckOutcome {
    Confirmed(Box<Membership>),
    Removed,
    Unknown,
}

impl MembershipCheck {
    /// Runs checks when needed, until `stop` or until this node is known to be removed.
    pub async fn run(self, stop: CancellationToken) {
        let mut silent = Duration::ZERO;
        while stop.run_until_cancelled(sleep(CHECK_INTERVAL)).await.is_some() {
            silent = if self.is_connected() { Duration::ZERO } else { silent + CHECK_INTERVAL };
            if silent < DISCONNECT_TIMEOUT && !self.needs_certificate() {
                continue;
            }
            match stop.run_until_cancelled(self.query_members()).await {
                None => return,
                Some(CheckOutcome::Removed) => {
                    error!("this node was removed from the cluster; it has stopped serving");
                    self.status.set_removed();
                    return;
                }
                Some(CheckOutcome::Confirmed(membership)) => {
                    info!("a member confirmed this node and renewed its certificate");
                    if let Some(certificate) = membership.certificate() {
                        self.trust_store.set_certificate(certificate).await;
                    }
                    if silent >= DISCONNECT_TIMEOUT {
                        self.trust_store.set_directory(membership.directory()).await;
                    }
                }
                Some(CheckOutcome::Unknown) => {}
            }
            stop.run_until_cancelled(sleep(RETRY_DELAY)).await;
        }
    }

    fn is_connected(&self) -> bool {
        match self.role {
            Role::Worker => self.status.reader().get(|node| node.connected),
            Role::ControlPlane => self.group().is_some_and(|group| group.has_live_leader()),
        }
    }

    fn group(&self) -> Option<Group> {
        self.status.reader().group()
    }

    /// Returns true if the certificate is missing or past half its lifetime, and this node cannot
    /// issue one.
    fn needs_certificate(&self) -> bool {
        let group = self.group();
        let state = group.as_ref().map(Group::state);
        if state.is_some_and(|state| state.authorities().is_some()) {
            return false;
        }
        match &self.trust.borrow().credentials {
            None => self.role == Role::Worker || group.is_some(),
            Some(present) => Leaf::from_chain(present.chain().to_vec())
                .map_or(true, |leaf| leaf.renew_at() <= clock::now()),
        }
    }

    async fn query_members(&self) -> CheckOutcome {
        let trust = Arc::clone(&self.trust.borrow());
        // Only control-plane members can answer. One may now have a worker's old address; try last.
        let control_plane = trust.control_plane().flat_map(|(_, peer)| &peer.addresses);
        let workers = trust.directory.values().filter(|peer| peer.role == Role::Worker);
        let workers = workers.flat_map(|peer| &peer.addresses);
        let hinted: BTreeSet<SocketAddr> = self.hints.borrow().iter().copied().collect();
        let mut asked = BTreeSet::new();
        for address in control_plane.copied().chain(hinted).chain(workers.copied()) {
            if !asked.insert(address) {
                continue;
            }
            match timeout(REPLY_TIMEOUT, self.query(&trust, address)).await {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(_) => debug!(%address, "membership check timed out"),
            }
        }
        CheckOutcome::Unknown
    }

    /// Asks the control-plane member at an address. `None` if no known member answers there, or if
    /// it cannot decide.
    async fn query(&self, trust: &Trust, address: SocketAddr) -> Option<CheckOutcome> {
        let session = match self.endpoint.dial_hello(address).await {
            Ok(session) => session,
            Err(error) => {
                debug!(%address, %error, "cannot dial a peer for the membership check");
                return None;
            }
        };
        let peer = session.node_id();
        let is_trusted = trust.control_plane().any(|(id, _)| *id == peer);
        if peer == self.me || !is_trusted {
            return None;
        }
        let reply = session.client().renew(RenewRequest {}).await.ok()?.into_inner();
        match reply.outcome? {
            renew_reply::Outcome::Renewed(admitted) => {
                let mut membership = Membership::from_admission(&admitted, self.role).ok()?;
                let mut directory = membership.directory();
                if let Some(peer) = directory.get_mut(&peer) {
                    peer.addresses.retain(|known| *known != address);
                    peer.addresses.insert(0, address);
                }
                membership.set_peers(&directory);
                Some(CheckOutcome::Confirmed(Box::new(membership)))
            }
            renew_reply::Outcome::Refused(refusal) if refusal.reason() == Reason::Removed => {
                Some(CheckOutcome::Removed)
            }
            renew_reply::Outcome::Refused(_) => None,
        }
    }
}
