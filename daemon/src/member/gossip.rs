//! Gossip tasks: the protocol itself, this node's metadata, and the remembered peers.

use std::sync::Arc;

use muster_gossip::{self, Gossip, NodeMeta};
use muster_sources::{self, Sources};
use muster_transport::endpoint::Trust;
use muster_types::{UnixMillis, VERSION};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{MemberRuntime, MemberTasks};
use crate::clock;

impl MemberRuntime {
    /// Starts the gossip tasks.
    pub(super) fn gossip(&self, member_tasks: &mut MemberTasks) -> Gossip {
        let MemberTasks { tasks, stop, .. } = member_tasks;
        // Seconds since 1970 grow with each start; peers correct a generation from a wrong clock.
        let started = clock::now_millis().saturating_duration_since(UnixMillis::default());
        let generation = u32::try_from(started.as_secs()).unwrap_or(u32::MAX / 2);
        let params = muster_gossip::GossipParams {
            me: self.me(),
            generation,
            settings: muster_gossip::Settings::default(),
            datagrams: self.endpoint.clone(),
            inbox: self.endpoint.datagrams(),
            trust: self.trust_store.trust(),
            rng: StdRng::from_seed(seed()),
        };
        let (gossip, driver) = Gossip::new(params, stop.clone());
        tasks.spawn("gossip", driver.run());
        let (mut own, handle, follow) =
            (self.status.reader().addresses(), gossip.clone(), stop.clone());
        tasks.spawn("gossip-metadata", async move {
            loop {
                let addresses = own.borrow_and_update().clone();
                let version = VERSION.to_owned();
                handle.set_meta(NodeMeta { addresses, version, config_version: 1 });
                match follow.run_until_cancelled(own.changed()).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) | None => break,
                }
            }
            follow.cancelled().await;
        });
        let remember = remember(self.sources.clone(), self.trust_store.trust(), stop.clone());
        tasks.spawn("remember", remember);
        gossip
    }
}

/// Saves the peers' addresses for the next start.
async fn remember(
    sources: Sources,
    mut trust: watch::Receiver<Arc<Trust>>,
    stop: CancellationToken,
) {
    loop {
        let current = Arc::clone(&trust.borrow_and_update());
        let peers = current.directory.iter().map(|(id, peer)| muster_sources::RememberedPeer {
            id: *id,
            name: peer.name.clone(),
            role: peer.role,
            addresses: peer.addresses.clone(),
        });
        sources.remember(peers.collect()).await;
        match stop.run_until_cancelled(trust.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => break,
        }
    }
    stop.cancelled().await;
}

/// Returns a random seed for gossip from the kernel.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
        .expect("the kernel's random number generator works");
    seed
}
