//! The trust store: one task owns the membership file and the [`Trust`] that sessions are checked
//! against. It writes an update to disk, then publishes it. A full disk does not delay publication,
//! because a removed member must lose access at once.

use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::tls::Credentials;
use muster_transport::endpoint::{Directory, Trust};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::membership::{Membership, NodeCertificate};
use muster_types::error::chain as chain_of;

/// Capacity of the update queue.
const QUEUE_CAPACITY: usize = 16;

/// An update about the cluster.
#[derive(Debug)]
enum Update {
    Membership(Box<Membership>),
    Certificate(NodeCertificate),
    Directory(Directory),
}

/// Handle: submits updates and reads the current trust.
#[derive(Debug, Clone)]
pub struct TrustStore {
    updates: mpsc::Sender<Update>,
    trust: watch::Receiver<Arc<Trust>>,
}

impl TrustStore {
    /// Returns a receiver of the current trust.
    pub fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.clone()
    }

    /// Stores the membership of the cluster that this node now belongs to.
    pub async fn set_membership(&self, membership: Membership) {
        self.send(Update::Membership(Box::new(membership))).await;
    }

    /// Stores a newer certificate, or newer authorities to trust.
    pub async fn set_certificate(&self, certificate: NodeCertificate) {
        self.send(Update::Certificate(certificate)).await;
    }

    /// Stores a changed registry.
    pub async fn set_directory(&self, directory: Directory) {
        self.send(Update::Directory(directory)).await;
    }

    async fn send(&self, update: Update) {
        self.updates.send(update).await.ok(); // the node is stopping
    }
}

/// Task of the trust store: spawn [`TrustStoreTask::run`].
#[derive(Debug)]
pub struct TrustStoreTask {
    identity: Arc<Identity>,
    path: PathBuf,
    membership: Option<Membership>,
    updates: mpsc::Receiver<Update>,
    trust: watch::Sender<Arc<Trust>>,
}

/// Creates the trust store from the membership on disk.
pub fn create(
    identity: Arc<Identity>,
    path: PathBuf,
    membership: Option<Membership>,
) -> (TrustStore, TrustStoreTask) {
    let derived = membership.as_ref().map(|mine| derive_trust(&identity, mine, &Trust::default()));
    let (trust, trusted) = watch::channel(Arc::new(derived.unwrap_or_default()));
    let (sender, updates) = mpsc::channel(QUEUE_CAPACITY);
    (
        TrustStore { updates: sender, trust: trusted },
        TrustStoreTask { identity, path, membership, updates, trust },
    )
}

/// Derives the trust from a membership. Reuses unchanged credentials of `before`, so that sessions
/// see a change only when there is one.
fn derive_trust(identity: &Identity, membership: &Membership, before: &Trust) -> Trust {
    let directory = membership.directory();
    let Some(NodeCertificate { chain, authorities }) = membership.certificate() else {
        return Trust { credentials: None, directory };
    };
    if let Some(present) = &before.credentials
        && present.chain() == chain
        && present.bundle().certificates() == authorities
    {
        return Trust { credentials: before.credentials.clone(), directory };
    }
    let bundle = TrustBundle::new(authorities).map_err(|error| chain_of(&error));
    let credentials =
        bundle.and_then(|b| Credentials::new(identity, chain, b).map_err(|e| chain_of(&e)));
    let credentials = match credentials {
        Ok(credentials) => Some(Arc::new(credentials)),
        Err(error) => {
            warn!(error, "cannot use the node certificate; requesting another");
            before.credentials.clone()
        }
    };
    Trust { credentials, directory }
}

impl TrustStoreTask {
    /// Applies updates until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut updates = Vec::new();
        loop {
            // Updates that arrived during a write are written together.
            let taken = stop
                .run_until_cancelled(self.updates.recv_many(&mut updates, QUEUE_CAPACITY))
                .await;
            match taken {
                Some(1..) => self.apply(updates.drain(..)).await,
                Some(0) | None => break,
            }
        }
        // A removed node gets no more updates. Its trust stays published until the node stops.
        stop.cancelled().await;
    }

    async fn apply(&mut self, all: impl Iterator<Item = Update>) {
        let before = self.membership.clone();
        for update in all {
            match (update, &mut self.membership) {
                (Update::Membership(membership), _) => self.membership = Some(*membership),
                (Update::Certificate(certificate), Some(mine)) => {
                    mine.set_certificate(&certificate);
                }
                (Update::Directory(directory), Some(mine)) => mine.set_peers(&directory),
                (Update::Certificate(_) | Update::Directory(_), None) => {}
            }
        }
        let Some(membership) = self.membership.as_ref().filter(|m| before.as_ref() != Some(m))
        else {
            return;
        };
        // Not on a runtime thread: a stalled disk must not stall Raft and every session.
        let (to_save, path) = (membership.clone(), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || to_save.save(&path)).await;
        if let Err(error) = saved.expect("saving neither panics nor is aborted") {
            // A full disk must not keep removed members trusted.
            warn!(error = chain_of(&error), "cannot save the membership; applied in memory only");
        }
        let derived = derive_trust(&self.identity, membership, &self.trust.borrow());
        self.trust.send_replace(Arc::new(derived));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use muster_messages::hello::{Admitted, Credentials as WireCredentials};
    use muster_pki::authority::{Authority, AuthorityKind};
    use muster_pki::leaf::{self, Profile};
    use muster_types::{ClusterId, Role};

    use super::*;

    /// An admitted worker.
    fn member() -> (Arc<Identity>, Membership) {
        let now = crate::clock::now();
        let cluster = ClusterId::from_bytes([3; 32]);
        let identity = Arc::new(Identity::generate());
        let authority = Authority::create(AuthorityKind::Machine, "demo", &cluster, now);
        let profile = Profile::Node { id: identity.node_id(), role: Role::Worker };
        let leaf = leaf::issue(&authority, &profile, &identity.public_key().into(), now).unwrap();
        let answer = Admitted {
            cluster_id: cluster.to_vec(),
            cluster_name: "demo".to_owned(),
            credentials: Some(WireCredentials {
                certificate_chain: leaf.chain.iter().map(|der| der.to_vec()).collect(),
                machine_authorities: vec![authority.certificate().to_vec()],
            }),
            peers: Vec::new(),
        };
        (identity, Membership::from_admission(&answer, Role::Worker).unwrap())
    }

    async fn store_membership(path: PathBuf) -> Membership {
        let (identity, membership) = member();
        let (trust_store, owner) = create(identity, path, None);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(owner.run(stop.clone()));
        trust_store.set_membership(membership.clone()).await;
        let mut trust = trust_store.trust();
        trust.wait_for(|trust| trust.credentials.is_some()).await.unwrap();
        stop.cancel();
        membership
    }

    #[tokio::test]
    async fn stored_membership_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("membership.json");
        let derived = store_membership(path.clone()).await;
        assert_eq!(Membership::load(&path).unwrap(), Some(derived));
    }

    /// Two syncs of a stalled disk once blocked a thread that drives Raft and QUIC.
    #[test]
    fn the_disk_is_waited_for_outside_of_the_runtime() {
        let dir = tempfile::tempdir().unwrap();
        let others = Arc::new(AtomicUsize::new(0));
        let started = Arc::clone(&others);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .on_thread_start(move || {
                started.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        runtime.block_on(store_membership(dir.path().join("membership.json")));
        assert_eq!(
            others.load(Ordering::Relaxed),
            1,
            "the file was saved on the runtime's only thread"
        );
    }
}
