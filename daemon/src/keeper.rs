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

use crate::membership::{Certified, Membership};
use muster_types::error::chain as chain_of;

/// Capacity of the update queue.
const NEWS: usize = 16;

/// An update about the cluster.
#[derive(Debug)]
enum News {
    Joined(Box<Membership>),
    Certified(Certified),
    Directory(Directory),
}

/// Handle: submits updates and reads the current trust.
#[derive(Debug, Clone)]
pub struct Keeper {
    news: mpsc::Sender<News>,
    trust: watch::Receiver<Arc<Trust>>,
}

impl Keeper {
    /// Returns a receiver of the current trust.
    pub fn trust(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.clone()
    }

    /// Stores the membership of the cluster that this node now belongs to.
    pub async fn joined(&self, membership: Membership) {
        self.tell(News::Joined(Box::new(membership))).await;
    }

    /// Stores a newer certificate, or newer authorities to trust.
    pub async fn set_certified(&self, certified: Certified) {
        self.tell(News::Certified(certified)).await;
    }

    /// Stores a changed registry.
    pub async fn set_directory(&self, directory: Directory) {
        self.tell(News::Directory(directory)).await;
    }

    async fn tell(&self, news: News) {
        self.news.send(news).await.ok(); // the node is stopping
    }
}

/// Task of the trust store: spawn [`Owner::run`].
#[derive(Debug)]
pub struct Owner {
    identity: Arc<Identity>,
    path: PathBuf,
    membership: Option<Membership>,
    news: mpsc::Receiver<News>,
    trust: watch::Sender<Arc<Trust>>,
}

/// Creates the trust store from the membership on disk.
pub fn keeper(
    identity: Arc<Identity>,
    path: PathBuf,
    membership: Option<Membership>,
) -> (Keeper, Owner) {
    let believed = membership.as_ref().map(|mine| trust_of(&identity, mine, &Trust::default()));
    let (trust, trusted) = watch::channel(Arc::new(believed.unwrap_or_default()));
    let (told, news) = mpsc::channel(NEWS);
    (Keeper { news: told, trust: trusted }, Owner { identity, path, membership, news, trust })
}

/// Derives the trust from a membership. Reuses unchanged credentials of `before`, so that sessions
/// see a change only when there is one.
fn trust_of(identity: &Identity, membership: &Membership, before: &Trust) -> Trust {
    let directory = membership.directory();
    let Some(Certified { chain, authorities }) = membership.certified() else {
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

impl Owner {
    /// Applies updates until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut news = Vec::new();
        loop {
            // Updates that arrived during a write are written together.
            let taken = stop.run_until_cancelled(self.news.recv_many(&mut news, NEWS)).await;
            match taken {
                Some(1..) => self.take(news.drain(..)).await,
                Some(0) | None => break,
            }
        }
        // A removed node gets no more updates. Its trust stays published until the node stops.
        stop.cancelled().await;
    }

    async fn take(&mut self, all: impl Iterator<Item = News>) {
        let before = self.membership.clone();
        for news in all {
            match (news, &mut self.membership) {
                (News::Joined(membership), _) => self.membership = Some(*membership),
                (News::Certified(certified), Some(mine)) => mine.set_certified(&certified),
                (News::Directory(directory), Some(mine)) => mine.set_peers(&directory),
                (News::Certified(_) | News::Directory(_), None) => {}
            }
        }
        let Some(membership) = self.membership.as_ref().filter(|m| before.as_ref() != Some(m))
        else {
            return;
        };
        // Not on a runtime thread: a stalled disk must not stall Raft and every session.
        let (news, path) = (membership.clone(), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || news.save(&path)).await;
        if let Err(error) = saved.expect("saving neither panics nor is aborted") {
            // A full disk must not keep removed members trusted.
            warn!(error = chain_of(&error), "cannot save the membership; applied in memory only");
        }
        let believed = trust_of(&self.identity, membership, &self.trust.borrow());
        self.trust.send_replace(Arc::new(believed));
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
        (identity, Membership::admitted(&answer, Role::Worker).unwrap())
    }

    async fn believe(path: PathBuf) -> Membership {
        let (identity, membership) = member();
        let (keeper, owner) = keeper(identity, path, None);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(owner.run(stop.clone()));
        keeper.joined(membership.clone()).await;
        let mut trust = keeper.trust();
        trust.wait_for(|trust| trust.credentials.is_some()).await.unwrap();
        stop.cancel();
        membership
    }

    #[tokio::test]
    async fn what_is_believed_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("membership.json");
        let believed = believe(path.clone()).await;
        assert_eq!(Membership::load(&path).unwrap(), Some(believed));
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
        runtime.block_on(believe(dir.path().join("membership.json")));
        assert_eq!(
            others.load(Ordering::Relaxed),
            1,
            "the file was saved on the runtime's only thread"
        );
    }
}
