//! Drivers on channels instead of sessions, in paused time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_pki::identity::{Identity, node_id};
use muster_types::Role;
use rand::SeedableRng;
use tokio::task::JoinSet;

use super::*;
use crate::LivenessState;
use muster_transport::endpoint::Peer;

/// Inboxes of the reachable members; a full inbox loses the datagram.
struct Wires {
    me: NodeId,
    inboxes: HashMap<NodeId, mpsc::Sender<(NodeId, Bytes)>>,
    counts: Arc<Counts>,
}

/// Number of datagrams sent, and how many of them were optional.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    optional: AtomicUsize,
}

impl Wires {
    fn pass(&self, to: NodeId, datagram: Bytes) {
        if let Some(inbox) = self.inboxes.get(&to) {
            inbox.try_send((self.me, datagram)).ok();
        }
    }
}

impl DatagramTransport for Wires {
    fn send(&self, to: NodeId, datagram: Bytes) {
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        self.pass(to, datagram);
    }

    fn send_optional(&self, to: NodeId, datagram: Bytes) {
        self.counts.optional.fetch_add(1, Ordering::Relaxed);
        self.pass(to, datagram);
    }
}

struct Node {
    id: NodeId,
    counts: Arc<Counts>,
    gossip: Gossip,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

fn cluster(members: u8) -> Vec<Node> {
    let peers: Vec<Peer> = (0..members)
        .map(|n| Peer {
            public_key: Identity::generate().public_key(),
            name: format!("m{n}").parse().unwrap(),
            role: Role::Worker,
            addresses: Vec::new(),
        })
        .collect();
    let id = |peer: &Peer| node_id(&peer.public_key);
    let directory = peers.iter().map(|peer| (id(peer), peer.clone())).collect();
    let (_trust, trusted) = watch::channel(Arc::new(Trust { credentials: None, directory }));
    let (inboxes, mail): (HashMap<_, _>, Vec<_>) = peers
        .iter()
        .map(|peer| {
            let (inbox, mail) = mpsc::channel(64);
            ((id(peer), inbox), mail)
        })
        .unzip();
    let node = |(peer, inbox): (&Peer, _)| {
        let counts: Arc<Counts> = Arc::default();
        let params = GossipParams {
            me: id(peer),
            generation: 1,
            settings: Settings::default(),
            datagrams: Wires {
                me: id(peer),
                inboxes: inboxes.clone(),
                counts: Arc::clone(&counts),
            },
            inbox,
            trust: trusted.clone(),
            rng: StdRng::seed_from_u64(1),
        };
        let stop = CancellationToken::new();
        let (gossip, driver) = Gossip::new(params, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Node { id: id(peer), counts, gossip, stop, tasks }
    };
    peers.iter().zip(mail).map(node).collect()
}

async fn sees(node: &Node, limit: Duration, wanted: impl Fn(&NodeId) -> LivenessState) {
    let mut view = node.gossip.liveness();
    let seen = view.wait_for(|view| {
        !view.is_empty() && view.iter().all(|(id, liveness)| liveness.state == wanted(id))
    });
    let came = tokio::time::timeout(limit, seen).await.is_ok();
    assert!(came, "within {limit:?}, but {:?}", node.gossip.liveness().borrow());
}

/// No death can be detected within a second: the suspicion timeout alone is longer.
#[tokio::test(start_paused = true)]
async fn a_stopping_member_announces_it_and_is_down_at_once() {
    let mut nodes = cluster(3);
    for node in &nodes {
        sees(node, Duration::from_secs(10), |_| LivenessState::Alive).await;
    }
    let mut leaving = nodes.pop().unwrap();
    leaving.stop.cancel();
    leaving.tasks.join_next().await.unwrap().unwrap();
    for node in &nodes {
        let wanted = |id: &NodeId| {
            if *id == leaving.id { LivenessState::Down } else { LivenessState::Alive }
        };
        sees(node, Duration::from_secs(1), wanted).await;
    }
}

/// The search for missing members is optional; probes and answers, which decide liveness, are not.
#[tokio::test(start_paused = true)]
async fn a_search_is_optional_and_a_probe_is_required() {
    let nodes = cluster(3);
    for node in &nodes {
        sees(node, Duration::from_secs(10), |_| LivenessState::Alive).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let counts = || {
        let counts = &nodes[0].counts;
        (counts.sent.load(Ordering::Relaxed), counts.optional.load(Ordering::Relaxed))
    };
    let (sent, optional) = counts();
    assert!(optional > 0, "no search was sent");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (later, all) = counts();
    assert!(later >= sent + 25, "{sent} to {later}: a probe every 0.4 s, and answers");
    assert_eq!(all, optional);
}
