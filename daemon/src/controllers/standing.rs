//! Whether this node still is a member, and a certificate from others when it cannot make its own:
//! a worker's always, a founder's that was away when the authorities were agreed. Asked over
//! `muster-hello/1`, where the identity key alone tells who asks; only control-plane members that this
//! node knows by their keys are believed.

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
use crate::keeper::Keeper;
use crate::membership::Membership;
use crate::raft::Group;

/// How often the need to ask is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// For how long this node must have been out of touch before it asks whether it was removed.
const OUT_OF_TOUCH: Duration = Duration::from_secs(3);

/// The pause between two rounds of asking.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How long one peer may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// What this looks at and whom it tells.
#[derive(Debug)]
pub struct Standing {
    pub me: NodeId,
    pub role: Role,
    pub endpoint: Endpoint,
    pub trust: watch::Receiver<Arc<Trust>>,
    pub group: watch::Receiver<Option<Group>>,
    /// On a worker: whether a control-plane node answers.
    pub in_touch: watch::Receiver<bool>,
    pub keeper: Keeper,
    /// Addresses where somebody might be, should all members have moved at once.
    pub hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    pub removed: watch::Sender<bool>,
}

/// What the others said.
enum Answer {
    Member(Box<Membership>),
    Removed,
    Nothing,
}

impl Standing {
    /// Asks whenever there is need, until `stop` or until this node is known to be removed.
    pub async fn run(self, stop: CancellationToken) {
        let mut silent = Duration::ZERO;
        while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            silent = if self.is_in_touch() { Duration::ZERO } else { silent + LOOK };
            if silent < OUT_OF_TOUCH && !self.needs_certificate() {
                continue;
            }
            match stop.run_until_cancelled(self.ask_around()).await {
                None => return,
                Some(Answer::Removed) => {
                    error!("this node was removed from the cluster; it serves nothing any more");
                    self.removed.send_replace(true);
                    return;
                }
                Some(Answer::Member(membership)) => {
                    info!("a member has confirmed this node and renewed its certificate");
                    if let Some(certified) = membership.certified() {
                        self.keeper.set_certified(certified).await;
                    }
                    if silent >= OUT_OF_TOUCH {
                        self.keeper.set_directory(membership.directory()).await;
                    }
                }
                Some(Answer::Nothing) => {}
            }
            stop.run_until_cancelled(sleep(ASK_AGAIN)).await;
        }
    }

    fn is_in_touch(&self) -> bool {
        match self.role {
            Role::Worker => *self.in_touch.borrow(),
            Role::ControlPlane => self.group.borrow().as_ref().is_some_and(Group::is_in_touch),
        }
    }

    /// Whether the certificate is missing or past half its life, and this node cannot issue one.
    fn needs_certificate(&self) -> bool {
        let group = self.group.borrow();
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

    async fn ask_around(&self) -> Answer {
        let trust = Arc::clone(&self.trust.borrow());
        // Only control-plane members can tell. Where workers were, one may be by now; asked last.
        let of = |role: Role| {
            let peers = trust.directory.values().filter(move |peer| peer.role == role);
            peers.flat_map(|peer| peer.addresses.iter().copied())
        };
        let hinted: BTreeSet<SocketAddr> = self.hints.borrow().iter().copied().collect();
        let mut asked = BTreeSet::new();
        for address in of(Role::ControlPlane).chain(hinted).chain(of(Role::Worker)) {
            if !asked.insert(address) {
                continue;
            }
            match timeout(ANSWER, self.ask(&trust, address)).await {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(_) => debug!(%address, "no answer about this node's standing"),
            }
        }
        Answer::Nothing
    }

    /// What the control-plane member at an address says; none if nobody is there who is known by
    /// key, or if it cannot tell.
    async fn ask(&self, trust: &Trust, address: SocketAddr) -> Option<Answer> {
        let session = match self.endpoint.dial_hello(address).await {
            Ok(session) => session,
            Err(error) => {
                debug!(%address, %error, "a peer could not be asked about this node's standing");
                return None;
            }
        };
        let peer = session.node_id();
        let believed =
            trust.directory.get(&peer).is_some_and(|peer| peer.role == Role::ControlPlane);
        if peer == self.me || !believed {
            return None;
        }
        let reply = session.client().renew(RenewRequest {}).await.ok()?.into_inner();
        match reply.outcome? {
            renew_reply::Outcome::Renewed(admitted) => {
                let mut membership = Membership::admitted(&admitted, self.role).ok()?;
                let mut directory = membership.directory();
                if let Some(peer) = directory.get_mut(&peer) {
                    peer.addresses.retain(|known| *known != address);
                    peer.addresses.insert(0, address);
                }
                membership.set_peers(&directory);
                Some(Answer::Member(Box::new(membership)))
            }
            renew_reply::Outcome::Refused(refusal) if refusal.reason() == Reason::Removed => {
                Some(Answer::Removed)
            }
            renew_reply::Outcome::Refused(_) | renew_reply::Outcome::Redirect(_) => None,
        }
    }
}
