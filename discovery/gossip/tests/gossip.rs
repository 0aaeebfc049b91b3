//! Gossip over real QUIC sessions on loopback.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use muster_gossip::{Gossip, GossipParams, LivenessState, NodeMeta, Settings};
use muster_kit::raw_client::raw_client;
use muster_kit::{TIMEOUT, TestNode, bounded, form_cluster, message};
use muster_messages::hello::{AnchorRequest, ProveRequest};
use muster_pki::proof::{EXPORTER_LABEL, Side, Transcript};
use muster_pki::token::Token;
use muster_services::hello::hello_client::HelloClient;
use muster_types::NodeId;
use muster_types::wire::ALPN_HELLO;
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

/// A peer on `muster-hello/1` is not a member there, even with a member's key. Gossip trusts the
/// session's sender, and only `muster-node/1` sessions may deliver datagrams.
#[tokio::test]
async fn a_datagram_on_a_proven_hello_session_never_reaches_gossip() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    form_cluster(&[&a, &b]);
    let token = Token::generate();
    b.accept_token(&token);
    let mut gossip = b.endpoint.datagrams();
    let (client, config) = raw_client(ALPN_HELLO, Some(&a.identity));
    let connection = client.connect_with(config, b.address, "any").unwrap().await.unwrap();
    let mut hello = HelloClient::new(http2(&connection).await);
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
    let transcript = Transcript {
        exporter,
        dialer: a.identity.public_key(),
        listener: b.identity.public_key(),
        token: token.id().clone(),
    };
    let proof = token.verifier().prove(Side::Dialer, &transcript).to_vec();
    hello.prove(ProveRequest { token_id: token.id().to_string(), proof }).await.unwrap();
    for _ in 0..500 {
        connection.send_datagram(bytes::Bytes::from_static(b"gossip of a guest")).unwrap();
        tokio::task::yield_now().await;
    }
    hello.anchor(AnchorRequest {}).await.expect("the session goes on");
    assert!(connection.stats().frame_tx.datagram >= 100, "they were sent");
    // A member's datagram on its own protocol arrives, and none arrived before it.
    a.client(&b).append_entries(message("x")).await.unwrap();
    a.endpoint.send_datagram(b.id(), bytes::Bytes::from_static(b"gossip of a member"));
    let (from, said) = bounded("gossip of a member", gossip.recv()).await.unwrap();
    assert_eq!((from, &*said), (a.id(), &b"gossip of a member"[..]));
    hello.anchor(AnchorRequest {}).await.expect("the session goes on");
    assert!(gossip.try_recv().is_err(), "gossip of a guest was delivered");
}

/// Opens HTTP/2 on a stream of a connection.
async fn http2(connection: &quinn::Connection) -> tonic::transport::Channel {
    let (send, receive) = connection.open_bi().await.unwrap();
    let mut stream = Some(TokioIo::new(tokio::io::join(receive, send)));
    let only = tower::service_fn(move |_| {
        let none = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        std::future::ready(stream.take().ok_or_else(none))
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://any");
    endpoint.connect_with_connector(only).await.unwrap()
}
