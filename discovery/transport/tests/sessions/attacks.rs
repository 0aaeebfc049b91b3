//! Attacks by dialling peers: the wrong protocol, foreign certificates, garbage and floods.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use muster_kit::raw_client::{raw_client, raw_client_with};
use muster_kit::{TIMEOUT, TestNode, bounded, form_cluster, message, now, until};
use muster_messages::hello::{AnchorRequest, ProveRequest};
use muster_messages::node::{ReportRequest, SnapshotChunk};
use muster_pki::CertificateDer;
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::leaf::{self, Profile};
use muster_pki::tls::Credentials;
use muster_pki::token::Token;
use muster_services::hello::hello_client::HelloClient;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE, MAX_MESSAGE};
use muster_types::{ClusterId, Role};
use rustls::sign::CertifiedKey;
use tonic::Code;

use crate::ANY;

#[tokio::test]
async fn repeated_wrong_proofs_are_rate_limited() {
    let b = TestNode::start(ANY);
    let mut closed_early = 0;
    for _ in 0..20 {
        let a = TestNode::start(ANY);
        let outcome = match a.endpoint.dial_hello(b.address).await {
            Ok(session) => session.prove(&Token::generate()).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if outcome.unwrap_err().contains("too many wrong proofs") {
            closed_early += 1;
        }
    }
    assert!(closed_early > 0, "no attempt was rate limited");
    let audited = b.rejections().len();
    assert!((5..=15).contains(&audited), "{audited} of 20 guesses were checked");
}

/// Returns true if the listener closes such a connection before answering on it.
async fn is_rejected(target: SocketAddr, alpn: &[u8], identity: Option<&Identity>) -> bool {
    let (client, config) = raw_client(alpn, identity);
    let Ok(connecting) = client.connect_with(config, target, "any") else { return true };
    let Ok(connection) = bounded("the handshake ends", connecting).await else { return true };
    tokio::time::timeout(TIMEOUT, connection.closed()).await.is_ok()
}

#[tokio::test]
async fn only_members_with_their_key_get_onto_the_node_protocol() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    assert!(is_rejected(b.address, ALPN_NODE, None).await, "no certificate");
    assert!(is_rejected(b.address, ALPN_NODE, Some(&Identity::generate())).await, "no member");
    assert!(is_rejected(b.address, ALPN_HELLO, None).await, "no certificate");
    assert!(is_rejected(b.address, b"h3", Some(&Identity::generate())).await, "no protocol");
    assert!(!is_rejected(b.address, ALPN_NODE, Some(&a.identity)).await, "a member");
}

/// Returns the TLS alert with which the listener rejects such a connection (RFC 9001 section 4.8).
async fn rejection(
    target: SocketAddr,
    (client, config): (quinn::Endpoint, quinn::ClientConfig),
) -> quinn::ConnectionClose {
    let why = match client.connect_with(config, target, "any").unwrap().await {
        Ok(connection) => bounded("the rejection", connection.closed()).await,
        Err(why) => why,
    };
    match why {
        quinn::ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) >> 8 == 1 =>
        {
            close
        }
        other => panic!("not rejected by TLS: {other}"),
    }
}

/// Returns the reason text with which the listener rejects such a connection.
async fn close_reason(target: SocketAddr, alpn: &[u8], identity: &Identity) -> String {
    let close = rejection(target, raw_client(alpn, Some(identity))).await;
    String::from_utf8_lossy(&close.reason).into_owned()
}

/// Returns the machine authority of a new cluster.
fn machine_authority() -> Authority {
    let cluster = ClusterId::from_bytes(*Identity::generate().node_id().as_bytes());
    Authority::create(AuthorityKind::Machine, "demo", &cluster, now())
}

/// Returns a certificate chain of this authority for the key.
fn chain(authority: &Authority, identity: &Identity) -> Vec<CertificateDer<'static>> {
    let profile = Profile::Node { id: identity.node_id(), role: Role::ControlPlane };
    leaf::issue(authority, &profile, &identity.public_key().into(), now()).unwrap().chain
}

/// The key is a member's, so only the chain can be invalid. The client accepts any server: the
/// listener must reject.
#[tokio::test]
async fn a_members_key_with_a_certificate_of_a_foreign_authority_is_refused_by_the_listener() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let (ours, foreign) = (machine_authority(), machine_authority());
    b.trust.send_modify(|trust| {
        let bundle = TrustBundle::new(vec![ours.certificate().clone()]).unwrap();
        let own = Credentials::new(&b.identity, chain(&ours, &b.identity), bundle).unwrap();
        let mut now = (**trust).clone();
        now.credentials = Some(Arc::new(own));
        *trust = Arc::new(now);
    });
    let dialer = |chain| {
        let key = Arc::clone(&a.identity.self_signed(now()).key);
        raw_client_with(ALPN_NODE, Some(Arc::new(CertifiedKey::new(chain, key))))
    };
    let self_made = a.identity.self_signed(now()).cert.clone();
    for wrong in [chain(&foreign, &a.identity), self_made] {
        let close = rejection(b.address, dialer(wrong)).await;
        assert!(close.reason.is_empty(), "{close}");
    }
    // The right chain is accepted, so nothing else was wrong.
    let (client, config) = dialer(chain(&ours, &a.identity));
    let connection = client.connect_with(config, b.address, "any").unwrap().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    bounded("the listener's settings", receive.read_exact(&mut [0; 9])).await.unwrap();
}

/// rustls explains in text why it rejected a certificate, and QUIC would send that text.
#[tokio::test]
async fn a_rejected_handshake_reveals_no_reason() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let unknown = Identity::generate();
    for alpn in [ALPN_NODE, b"h3"] {
        assert_eq!(close_reason(b.address, alpn, &unknown).await, "");
    }
    b.forget(&a);
    assert_eq!(close_reason(b.address, ALPN_NODE, &a.identity).await, "", "a former member");
}

#[tokio::test]
async fn each_protocol_serves_its_own_calls_only() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let token = Token::generate();
    b.accept_token(&token);
    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let mut raft = muster_services::node::node_client::NodeClient::new(session.channel());
    let status = raft.append_entries(message("x")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, ""));
    session.prove(&token).await.unwrap();
    let status = raft.append_entries(message("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    let channel = a.endpoint.channel(b.id());
    let mut hello = HelloClient::new(channel);
    let status = hello.anchor(AnchorRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

/// Returns this process's resident memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn an_oversize_message_is_refused_in_bounded_memory() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let before = resident();
    for _ in 0..20 {
        let session = a.endpoint.dial_hello(b.address).await.unwrap();
        let request = ProveRequest { token_id: "x".repeat(8 << 20), proof: vec![] };
        let status = bounded("an answer", session.client().prove(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    }
    let body = message(vec![0; MAX_MESSAGE + 1]);
    let status = bounded("an answer", a.client(&b).append_entries(body)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    a.client(&b).append_entries(message("x")).await.expect("the session goes on");
    // The sender's own copies are included.
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 << 20, "grown by {} MiB", grown >> 20);
}

#[tokio::test]
async fn garbage_does_not_disturb() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    let mut client = a.client(&b);
    client.append_entries(message("x")).await.unwrap();
    let socket = UdpSocket::bind(ANY).unwrap();
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..5000_usize {
        let mut packet = vec![0; round % 1500];
        for byte in &mut packet {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *byte = noise.to_le_bytes()[0];
        }
        // A full send buffer is acceptable noise.
        socket.send_to(&packet, b.address).ok();
        if round % 500 == 0 {
            bounded("an answer during the noise", client.append_entries(message("x")))
                .await
                .unwrap();
        }
    }
    bounded("an answer after the noise", client.append_entries(message("x"))).await.unwrap();
    assert_eq!(a.endpoint.handshakes().dialled, 1, "the session is still the first");
}

/// Returns the first packet of a handshake that is never continued.
fn first_packet(config: &quinn::ClientConfig, target: SocketAddr) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[1; 32]);
    let endpoint = quinn::EndpointConfig::new(Arc::new(key));
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(endpoint), None, true, None);
    let (_, mut connection) =
        endpoint.connect(Instant::now(), config.clone(), target, "any").unwrap();
    let mut packet = Vec::new();
    let transmit = connection.poll_transmit(Instant::now(), 1, &mut packet);
    assert_eq!(transmit.map(|transmit| transmit.size), Some(packet.len()));
    packet
}

/// Leaves two thousand handshakes half-open: half from one address, half from a thousand spoofed
/// ones. Honest peers still get in, and memory stays bounded.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "the measurement is part of the purpose")]
async fn half_open_handshakes_do_not_keep_the_honest_out() {
    let b = TestNode::start("127.0.0.1:0");
    let honest = TestNode::start("127.0.0.2:0");
    let member = TestNode::start("127.0.0.3:0");
    form_cluster(&[&b, &member]);
    let token = Token::generate();
    b.accept_token(&token);
    let (_client, config) = raw_client(ALPN_HELLO, Some(&Identity::generate()));
    let before = resident();
    let one = UdpSocket::bind("127.0.1.1:0").unwrap();
    for round in 0..1000_u16 {
        let [high, low] = round.to_be_bytes();
        let invented = UdpSocket::bind((Ipv4Addr::new(127, 1, high, low), 0)).unwrap();
        for socket in [&one, &invented] {
            socket.send_to(&first_packet(&config, b.address), b.address).unwrap();
        }
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let session = honest.endpoint.dial_hello(b.address).await.expect("an honest peer");
    bounded("the proof", session.prove(&token)).await.unwrap();
    bounded("a member", member.client(&b).append_entries(message("x"))).await.unwrap();
    let grown = resident().saturating_sub(before);
    eprintln!("2000 half-open handshakes: {} KiB, {:?}", grown >> 10, b.endpoint.handshakes());
    assert!(grown < 32 << 20, "grown by {} MiB", grown >> 20);
    assert!(b.endpoint.handshakes().accepted < 200, "{:?}", b.endpoint.handshakes());
}

#[tokio::test]
async fn an_idle_unauthenticated_session_is_closed_and_returns_its_permit() {
    let b = TestNode::start(ANY);
    let mut idle = Vec::new();
    // More than one address may hold at once.
    for _ in 0..60 {
        let (client, config) = raw_client(ALPN_HELLO, Some(&Identity::generate()));
        let connecting = client.connect_with(config, b.address, "any").unwrap();
        if let Ok(connection) = bounded("the handshake ends", connecting).await {
            idle.push((client, connection));
        }
    }
    assert!((20..60).contains(&idle.len()), "{} accepted", idle.len());
    for (_, connection) in &idle {
        bounded("the idle session is closed", connection.closed()).await;
    }
    let token = Token::generate();
    b.accept_token(&token);
    let a = TestNode::start(ANY);
    let session =
        until("a free permit", async || a.endpoint.dial_hello(b.address).await.ok()).await;
    session.prove(&token).await.unwrap();
}

/// A worker may have hundreds of calls in flight. Each may hold little memory, and a forbidden call
/// none.
#[tokio::test]
async fn a_worker_is_rejected_before_its_message_is_read_and_may_send_little() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    form_cluster(&[&a, &b]);
    b.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.insert(a.id(), a.peer(Role::Worker));
        *trust = Arc::new(now);
    });
    let mut client = a.client(&b);
    // An endless message, in a call for control-plane nodes only.
    let (pieces, stream) = tokio::sync::mpsc::channel(1);
    pieces.send(SnapshotChunk { body: vec![0; 1024], ..Default::default() }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let status = bounded("an answer", client.install_snapshot(stream)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    drop(pieces);
    let report = |bytes| ReportRequest { version: "x".repeat(bytes), ..Default::default() };
    bounded("an answer", client.report(report(8 << 10))).await.expect("within the bounds");
    let status = bounded("an answer", client.report(report(64 << 10))).await.unwrap_err();
    assert_ne!(status.code(), Code::Unavailable, "{status}");
    bounded("an answer", client.report(report(10))).await.expect("the session goes on");
    b.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.insert(a.id(), a.peer(Role::ControlPlane));
        *trust = Arc::new(now);
    });
    bounded("an answer", client.report(report(64 << 10)))
        .await
        .expect("a control-plane node may send more");
}
