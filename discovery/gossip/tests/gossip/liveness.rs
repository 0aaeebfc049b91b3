//! Members see each other, and notice a death, an end and a removal.

use std::sync::Arc;

use muster_gossip::{Gossip, GossipParams, LivenessState, NodeMeta, Settings};
use muster_kit::{TIMEOUT, TestNode, form_cluster};
use muster_types::NodeId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Member {
    node: TestNode,
    gossip: Gossip,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Member {
    fn start(n: u64) -> Self {
        let node = TestNode::start("127.0.0.1:0");
        let stop = CancellationToken::new();
        let params = GossipParams {
            me: node.id(),
            generation: 1,
            settings: Settings::default(),
            datagrams: node.endpoint.clone(),
            inbox: node.endpoint.datagrams(),
            trust: node.trust.subscribe(),
            rng: StdRng::seed_from_u64(n),
        };
        let (gossip, task) = Gossip::new(params, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        Self { node, gossip, stop, tasks }
    }

    async fn sees(&self, what: &str, wanted: impl Fn(&NodeId, LivenessState) -> bool) {
        let mut view = self.gossip.liveness();
        let seen = view.wait_for(|view| {
            !view.is_empty() && view.iter().all(|(id, liveness)| wanted(id, liveness.state))
        });
        let came = tokio::time::timeout(TIMEOUT, seen).await.is_ok();
        assert!(came, "never came: {what}, but {:?}", self.gossip.liveness().borrow());
    }
}

fn cluster(members: u64) -> Vec<Member> {
    let members: Vec<_> = (0..members).map(Member::start).collect();
    form_cluster(&members.iter().map(|member| &member.node).collect::<Vec<_>>());
    members
}

async fn all_see_all(members: &[Member]) {
    for member in members {
        member.sees("all see all", |_, state| state == LivenessState::Alive).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_see_each_other_and_notice_a_death_and_an_end() {
    let mut members = cluster(5);
    all_see_all(&members).await;

    let dead = members.pop().unwrap();
    let id = dead.node.id();
    drop(dead); // its sockets close with it: gossip announces no leave
    for member in &members {
        member
            .sees("one is down", |who, state| (state == LivenessState::Down) == (*who == id))
            .await;
    }

    let mut leaving = members.pop().unwrap();
    let left = leaving.node.id();
    leaving.stop.cancel();
    leaving.tasks.join_next().await.unwrap().unwrap();
    for member in &members {
        let gone = |who: &NodeId| *who == id || *who == left;
        member.sees("two are down", |who, state| (state == LivenessState::Down) == gone(who)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_learned_and_a_removed_member_is_forgotten() {
    let members = cluster(3);
    let meta = NodeMeta {
        addresses: vec!["192.0.2.1:50000".parse().unwrap()],
        version: "1.0.0".to_owned(),
        config_version: 7,
    };
    all_see_all(&members).await;
    members[0].gossip.set_meta(meta.clone());
    let id = members[0].node.id();
    for member in &members {
        let mut view = member.gossip.liveness();
        let learned = view.wait_for(|view| view[&id].meta.as_ref() == Some(&meta));
        tokio::time::timeout(TIMEOUT, learned).await.expect("the metadata is learned").unwrap();
    }
    for member in &members[1..] {
        member.node.forget(&members[0].node);
        let mut view = member.gossip.liveness();
        let forgotten = view.wait_for(|view| !view.contains_key(&id));
        tokio::time::timeout(TIMEOUT, forgotten).await.expect("it is forgotten").unwrap();
        member.sees("the rest stay", |_, state| state == LivenessState::Alive).await;
    }
    let trust = Arc::clone(&members[0].node.trust.borrow());
    assert_eq!(trust.directory.len(), 3, "the removed member still has the old directory");
    members[0]
        .sees("it sees only itself", |who, state| (*who == id) == (state == LivenessState::Alive))
        .await;
}
