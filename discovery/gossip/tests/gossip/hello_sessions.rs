//! Datagrams on sessions that are not those of a member.

use hyper_util::rt::TokioIo;
use muster_kit::raw_client::raw_client;
use muster_kit::{TestNode, bounded, form_cluster, message};
use muster_messages::hello::{AnchorRequest, ProveRequest};
use muster_pki::proof::{EXPORTER_LABEL, Side, Transcript};
use muster_pki::token::Token;
use muster_services::hello::hello_client::HelloClient;
use muster_types::wire::ALPN_HELLO;

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
