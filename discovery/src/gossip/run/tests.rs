//! Drivers on channels instead of sessions, in paused time.

use std::collections::HashMap;

use muster_pki::identity::{Identity, node_id};
use muster_proto::Role;
use rand::SeedableRng;
use tokio::task::JoinSet;

use super::*;
use crate::endpoint::Peer;
use crate::gossip::State;

/// Who may be written to; a full inbox loses the datagram.
struct Wires {
    me: NodeId,
    inboxes: HashMap<NodeId, mpsc::Sender<(NodeId, Bytes)>>,
}

impl Datagrams for Wires {
    fn send(&self, to: NodeId, datagram: Bytes) {
        if let Some(inbox) = self.inboxes.get(&to) {
            inbox.try_send((self.me, datagram)).ok();
        }
    }
}

struct Node {
    id: NodeId,
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
        let parts = Parts {
            me: id(peer),
            generation: 1,
            settings: Settings::default(),
            datagrams: Wires { me: id(peer), inboxes: inboxes.clone() },
            inbox,
            trust: trusted.clone(),
            rng: StdRng::seed_from_u64(1),
        };
        let stop = CancellationToken::new();
        let (gossip, driver) = Gossip::new(parts, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Node { id: id(peer), gossip, stop, tasks }
    };
    peers.iter().zip(mail).map(node).collect()
}

async fn sees(node: &Node, limit: Duration, wanted: impl Fn(&NodeId) -> State) {
    let mut view = node.gossip.liveness();
    let seen = view.wait_for(|view| {
        !view.is_empty() && view.iter().all(|(id, liveness)| liveness.state == wanted(id))
    });
    let came = tokio::time::timeout(limit, seen).await.is_ok();
    assert!(came, "within {limit:?}, but {:?}", node.gossip.liveness().borrow());
}

/// Nobody can find out a death within a second: suspicion alone lasts longer.
#[tokio::test(start_paused = true)]
async fn who_stops_says_goodbye_and_is_held_dead_at_once() {
    let mut nodes = cluster(3);
    for node in &nodes {
        sees(node, Duration::from_secs(10), |_| State::Alive).await;
    }
    let mut leaving = nodes.pop().unwrap();
    leaving.stop.cancel();
    leaving.tasks.join_next().await.unwrap().unwrap();
    for node in &nodes {
        let wanted = |id: &NodeId| if *id == leaving.id { State::Down } else { State::Alive };
        sees(node, Duration::from_secs(1), wanted).await;
    }
}
