//! Sessions between members over real sockets on loopback.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_kit::cable::Cable;
use muster_kit::{TIMEOUT, TestNode, bounded, form_cluster, message, now, until, within};
use muster_messages::node::{SnapshotChunk, WatchRequest};
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::{Identity, node_id};
use muster_pki::leaf::{self, Profile};
use muster_pki::tls::Credentials;
use muster_transport::endpoint::{Bind, BindError, Directory, Endpoint, MAX_DATAGRAM, Peer, Trust};
use muster_types::{ClusterId, Role};
use tonic::Code;

use crate::ANY;

#[tokio::test]
async fn members_call_each_other_over_one_connection() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let echoed = bounded("a calls b", a.client(&b).append_entries(message("x"))).await.unwrap();
    assert_eq!(echoed.into_inner(), message("x"));
    let echoed = bounded("b calls a", b.client(&a).append_entries(message("y"))).await.unwrap();
    assert_eq!(echoed.into_inner(), message("y"));
    let dialled = [&a, &b].map(|node| node.endpoint.handshakes().dialled);
    assert_eq!(dialled, [1, 0]);
}

/// Four dials to silent members for optional datagrams are the limit; a required datagram is still
/// sent.
#[tokio::test]
async fn optional_datagrams_are_dropped_while_enough_dials_are_running() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let silent: Vec<_> = (0..4).map(|_| UdpSocket::bind(ANY).unwrap()).collect();
    let absent = silent.iter().map(|socket| {
        let public_key = Identity::generate().public_key();
        let addresses = vec![socket.local_addr().unwrap()];
        let peer = Peer { public_key, addresses, ..b.peer(Role::Worker) };
        (node_id(&public_key), peer)
    });
    let absent: Directory = absent.collect();
    form_cluster(&[&a, &b]);
    a.trust.send_modify(|trust| Arc::make_mut(trust).directory.extend(absent.clone()));
    let mut arrived = b.endpoint.datagrams();
    for id in absent.keys() {
        a.endpoint.send_optional_datagram(*id, Bytes::from_static(b"who is there"));
    }
    a.endpoint.send_optional_datagram(b.id(), Bytes::from_static(b"offered"));
    a.endpoint.send_datagram(b.id(), Bytes::from_static(b"owed"));
    let (_, datagram) = bounded("the datagram", arrived.recv()).await.unwrap();
    assert_eq!(datagram, "owed");
    a.endpoint.send_optional_datagram(b.id(), Bytes::from_static(b"offered again"));
    let (_, datagram) = bounded("the next datagram", arrived.recv()).await.unwrap();
    assert_eq!(datagram, "offered again", "the session exists");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simultaneous_dial_loses_no_call() {
    for _ in 0..20 {
        let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
        form_cluster(&[&a, &b]);
        let (mut to_b, mut to_a) = (a.client(&b), b.client(&a));
        let both = async {
            tokio::join!(to_b.append_entries(message("x")), to_a.append_entries(message("y")))
        };
        let (x, y) = bounded("both answers", both).await;
        assert_eq!(
            (x.unwrap().into_inner(), y.unwrap().into_inner()),
            (message("x"), message("y"))
        );
        let again = async {
            tokio::join!(to_b.append_entries(message("x")), to_a.append_entries(message("y")))
        };
        let (x, y) = bounded("both answers again", again).await;
        x.unwrap();
        y.unwrap();
    }
}

/// Prints the round-trip time of a small call, for information; asserts nothing about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the measurement is the purpose")]
async fn a_thousand_small_calls_are_answered_one_after_the_other() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let mut client = a.client(&b);
    let mut times = Vec::new();
    for round in 0..1100 {
        let begun = Instant::now();
        let request = within(TIMEOUT, message(vec![7; 256]));
        client.append_entries(request).await.unwrap();
        if round >= 100 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("append of 256 bytes: p50 {p50:?}, p99 {p99:?}, max {:?}", times.last());
}

#[tokio::test]
async fn a_worker_is_refused_what_only_control_planes_may_call() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    b.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.insert(a.id(), a.peer(Role::Worker));
        *trust = Arc::new(now);
    });
    let refused =
        bounded("an answer", a.client(&b).append_entries(message("x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

/// While a node stops, gossip announces its leave over existing sessions, although the trust sender
/// is gone.
#[tokio::test]
async fn sessions_outlive_the_trust_sender() {
    let (a, mut b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    bounded("an answer", a.client(&b).append_entries(message("x"))).await.unwrap();
    let known = Arc::clone(&b.trust.borrow());
    b.trust = tokio::sync::watch::Sender::new(known); // the one that b's endpoint watches is gone
    for _ in 0..3 {
        tokio::task::yield_now().await;
        bounded("an answer", a.client(&b).append_entries(message("y"))).await.unwrap();
    }
}

#[tokio::test]
async fn the_sessions_of_a_removed_member_end_at_once() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let hello = a.endpoint.dial_hello(b.address).await.unwrap();
    let mut views = a.client(&b).watch(WatchRequest {}).await.unwrap().into_inner();
    views.message().await.unwrap().expect("the first view");

    b.forget(&a);
    let end = async { while let Ok(Some(_)) = views.message().await {} };
    bounded("the stream ends", end).await;
    until("the hello session ends", async || hello.is_closed().then_some(())).await;

    let refused =
        until("a refusal", async || a.client(&b).append_entries(message("x")).await.err()).await;
    assert!(matches!(refused.code(), Code::Unauthenticated | Code::Unavailable), "{refused}");
    let refused =
        bounded("an answer", a.client(&b).append_entries(message("x"))).await.unwrap_err();
    assert!(!refused.message().is_empty(), "gives a reason");
}

#[tokio::test]
async fn a_node_outside_the_directory_is_neither_called_nor_accepted() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let refused =
        bounded("an answer", a.client(&b).append_entries(message("x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    // a knows b, b does not know a.
    form_cluster(&[&a, &b]);
    b.trust.send_replace(Arc::new(Trust::default()));
    let refused = until("the refusal of b", async || {
        let status = a.client(&b).append_entries(message("x")).await.unwrap_err();
        (status.code() == Code::Unauthenticated).then_some(status)
    });
    assert!(refused.await.message().contains("the peer rejected this node"));
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the measurement is part of the purpose")]
async fn a_call_through_a_partition_ends_with_its_deadline_and_resumes_after_healing() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let cable = Cable::to(b.address).await;
    form_cluster(&[&a, &b]);
    a.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.get_mut(&b.id()).unwrap().addresses = vec![cable.address];
        *trust = Arc::new(now);
    });
    let mut client = a.client(&b);
    client.append_entries(message("x")).await.unwrap();
    for partition in [300, 1500, 2500, 6000].map(Duration::from_millis) {
        cable.cut();
        let cut = Instant::now();
        while cut.elapsed() < partition {
            let request = within(Duration::from_millis(150), message("x"));
            let answer = bounded("the end of a call", client.append_entries(request)).await;
            answer.expect_err("nothing arrives");
        }
        cable.heal();
        let healed = Instant::now();
        until("an answer after healing", async || {
            let request = within(Duration::from_millis(150), message("x"));
            client.append_entries(request).await.ok()
        })
        .await;
        eprintln!("partition of {partition:?}: an answer {:?} after it healed", healed.elapsed());
    }
}

#[tokio::test]
async fn a_call_without_a_deadline_fails_soon_when_the_peer_falls_silent() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let cable = Cable::to(b.address).await;
    form_cluster(&[&a, &b]);
    a.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.get_mut(&b.id()).unwrap().addresses = vec![cable.address];
        *trust = Arc::new(now);
    });
    a.client(&b).append_entries(message("x")).await.unwrap();
    cable.cut();
    // Sooner than the session's idle timeout, which is longer than `bounded` waits.
    let error = bounded("an error", a.client(&b).append_entries(message("x"))).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn a_restarted_peer_is_noticed_at_the_next_packet() {
    // A peer that is only noticed by its silence takes longer than this every time. A busy machine
    // does so only sometimes.
    let mut took = Vec::new();
    while took.iter().all(|took| *took >= Duration::from_millis(1500)) {
        assert!(took.len() < 5, "noticed only by its silence each time: {took:?}");
        took.push(answer_after_restart().await);
    }
}

/// Returns the time from a peer's restart without close frames to its next answer.
async fn answer_after_restart() -> Duration {
    let machine =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let a = TestNode::start(ANY);
    let b = {
        let _on = machine.enter();
        TestNode::start(ANY)
    };
    form_cluster(&[&a, &b]);
    a.client(&b).append_entries(message("x")).await.unwrap();
    let (address, trust) = (b.address, Arc::clone(&b.trust.borrow()));
    let identity = Arc::clone(&b.identity);
    // The runtime stops abruptly; no close frame is sent.
    machine.shutdown_background();
    drop(b);
    until("the socket is free", async || UdpSocket::bind(address).ok()).await;
    let b = TestNode::start_as(&address.to_string(), identity);
    b.trust.send_replace(trust);
    let begun = Instant::now();
    until("an answer of the restarted peer", async || {
        let request = within(Duration::from_millis(300), message("x"));
        a.client(&b).append_entries(request).await.ok()
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn a_peer_that_stops_in_order_is_unavailable_at_once() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let mut client = a.client(&b);
    client.append_entries(message("x")).await.unwrap();
    let mut hanging = a.client(&b);
    let hanging = hanging.request_vote(message("x"));
    let (answer, _) = tokio::join!(bounded("the call fails", hanging), b.shut_down());
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

fn certify(authority: &Authority, node: &TestNode) {
    let profile = Profile::Node { id: node.id(), role: Role::ControlPlane };
    let key = node.identity.public_key().into();
    let leaf = leaf::issue(authority, &profile, &key, now()).unwrap();
    let bundle = TrustBundle::new(vec![authority.certificate().clone()]).unwrap();
    let credentials = Credentials::new(&node.identity, leaf.chain, bundle).unwrap();
    node.trust.send_modify(|trust| {
        let directory = trust.directory.clone();
        *trust = Arc::new(Trust { credentials: Some(Arc::new(credentials)), directory });
    });
}

fn authority() -> Authority {
    let cluster = ClusterId::from_bytes([3; 32]);
    Authority::create(AuthorityKind::Machine, "demo", &cluster, now())
}

#[tokio::test]
async fn new_credentials_leave_a_running_stream_alone() {
    let (a, b, c) = (TestNode::start(ANY), TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b, &c]);
    let mut views = a.client(&b).watch(WatchRequest {}).await.unwrap().into_inner();
    let mut last = views.message().await.unwrap().expect("the first view").index;
    let authority = authority();
    for _ in 0..3 {
        for node in [&a, &b, &c] {
            certify(&authority, node);
        }
        for _ in 0..5 {
            let view = bounded("the next view", views.message()).await.unwrap().unwrap();
            assert_eq!(view.index, last + 1);
            last = view.index;
        }
    }
    bounded("a new session under the certificates", c.client(&b).append_entries(message("x")))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_member_under_another_authority_is_refused() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    certify(&authority(), &a);
    certify(&authority(), &b);
    bounded("an answer", a.client(&b).append_entries(message("x"))).await.unwrap_err();
}

#[tokio::test]
async fn datagrams_arrive_with_their_sender_and_what_does_not_fit_is_dropped() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let mut arrived = b.endpoint.datagrams();
    a.endpoint.send_datagram(b.id(), Bytes::from(vec![1; 70_000]));
    a.endpoint.send_datagram(b.id(), Bytes::from(vec![2; MAX_DATAGRAM]));
    let (from, datagram) = bounded("the datagram", arrived.recv()).await.unwrap();
    assert_eq!((from, datagram), (a.id(), Bytes::from(vec![2; MAX_DATAGRAM])));
    a.endpoint.send_datagram(a.id(), Bytes::from_static(b"to itself"));
    a.endpoint.send_datagram(b.id(), Bytes::from_static(b"next"));
    let (_, datagram) = bounded("the next datagram", arrived.recv()).await.unwrap();
    assert_eq!(datagram, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_does_not_hold_up_small_calls() {
    const PIECES: u64 = 64;
    const PIECE: usize = 512 << 10;
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let mut small = a.client(&b);
    small.append_entries(message("warm")).await.unwrap();
    let mut bulk =
        muster_services::node::node_client::NodeClient::new(a.endpoint.bulk_channel(b.id()));
    let piece = SnapshotChunk { header: vec![], body: vec![7; PIECE] };
    let pieces = tokio_stream::iter((0..PIECES).map(move |_| piece.clone()));
    let snapshot = async { bulk.install_snapshot(pieces).await.unwrap().into_inner() };
    let answered = std::cell::Cell::new(0);
    let calls = async {
        loop {
            small.append_entries(message(vec![1; 256])).await.unwrap();
            answered.set(answered.get() + 1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let total = tokio::select! {
        total = bounded("the snapshot", snapshot) => total,
        () = calls => unreachable!("the loop never ends"),
    };
    assert!(answered.get() >= 5, "{} small calls during the snapshot", answered.get());
    assert_eq!(total.body, (PIECES * (PIECE as u64)).to_be_bytes());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let a = TestNode::start(ANY);
    let trust = a.trust.subscribe();
    let bind = Bind { address: a.address, identity: Arc::clone(&a.identity), trust };
    let error = Endpoint::bind(bind).unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address == a.address), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the measurement is part of the purpose")]
async fn twenty_members_reach_each_other_all_at_once() {
    let nodes: Vec<_> = (0..20).map(|_| TestNode::start(ANY)).collect();
    form_cluster(&nodes.iter().collect::<Vec<_>>());
    let begun = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id() != from.id()) {
            let mut client = from.client(to);
            calls.spawn(async move { client.append_entries(message("x")).await.map(|_| ()) });
        }
    }
    while let Some(answer) = bounded("every answer", calls.join_next()).await {
        answer.unwrap().unwrap();
    }
    let dialled: u64 = nodes.iter().map(|node| node.endpoint.handshakes().dialled).sum();
    eprintln!("380 calls among 20 members: {:?}, {dialled} dials", begun.elapsed());
}
