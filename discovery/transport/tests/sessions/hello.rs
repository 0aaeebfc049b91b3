//! The token handshake over real sockets on loopback.

use std::time::Duration;

use muster_kit::cable::Cable;
use muster_kit::{TestNode, bounded, until, within};
use muster_messages::hello::{
    AnchorRequest, Candidate, GreetRequest, JoinRequest, NodeRole, ProveRequest, RenewRequest,
};
use muster_pki::token::Token;
use muster_transport::hello::{ProveError, RejectReason};
use tonic::Code;

fn me() -> Candidate {
    Candidate {
        name: "cp-1".to_owned(),
        role: NodeRole::ControlPlane.into(),
        ..Candidate::default()
    }
}

fn greeting() -> GreetRequest {
    GreetRequest { candidate: Some(me()), peers: vec![] }
}

#[tokio::test]
async fn a_peer_with_the_token_is_greeted() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    let token = Token::generate();
    b.accept_token(&token);
    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    assert_eq!(session.peer(), b.identity.public_key());
    session.prove(&token).await.unwrap();
    let reply = session.client().greet(greeting()).await.unwrap().into_inner();
    assert_eq!(reply.candidate, Some(me()));
    let peers = b.handler.peers.lock().unwrap().clone();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].caller.public_key, a.identity.public_key());
    assert_eq!(peers[0].caller.remote, a.address, "packets leave from the bound socket");
    assert_eq!(peers[0].token, *token.id());
}

#[tokio::test]
async fn unauthenticated_peers_get_nothing() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let mut client = session.client();
    let refusals = [
        client.greet(greeting()).await.err(),
        client.anchor(AnchorRequest {}).await.err(),
        client.join(JoinRequest { candidate: Some(me()) }).await.err(),
    ];
    for refusal in refusals {
        let status = refusal.unwrap();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, ""));
    }
    client.renew(RenewRequest {}).await.expect("renewal needs no token");
    bounded("the session is closed", until("closed", async || session.is_closed().then_some(())))
        .await;
}

#[tokio::test]
async fn a_wrong_or_unknown_token_is_refused_alike_and_audited() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    let (right, unknown) = (Token::generate(), Token::generate());
    b.accept_token(&right);
    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let refused = session.prove(&unknown).await.unwrap_err();
    assert!(matches!(refused, ProveError::Rejected { .. }), "{refused}");

    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let refused = session.prove_with(right.id(), &unknown.verifier()).await.unwrap_err();
    assert!(matches!(refused, ProveError::Rejected { .. }), "{refused}");
    let status = session.client().greet(greeting()).await.unwrap_err();
    assert!(matches!(status.code(), Code::PermissionDenied | Code::Unavailable), "{status}");
    until("the denied session is closed", async || session.is_closed().then_some(())).await;

    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let request = ProveRequest { token_id: "no such form".to_owned(), proof: vec![] };
    let status = session.client().prove(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, ""));
    assert_eq!(
        b.rejections(),
        [RejectReason::UnknownToken, RejectReason::WrongProof, RejectReason::NotAToken]
    );
}

#[tokio::test]
async fn a_call_to_a_listener_that_falls_silent_ends() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    let token = Token::generate();
    b.accept_token(&token);
    let cable = Cable::to(b.address).await;
    let session = a.endpoint.dial_hello(cable.address).await.unwrap();
    session.prove(&token).await.unwrap();
    cable.cut();
    let request = within(Duration::from_millis(200), greeting());
    let answer = bounded("the end of a call", session.client().greet(request)).await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let status = bounded("an error", session.client().greet(greeting())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let error = bounded("no answer", a.endpoint.dial_hello(cable.address)).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 5000 ms"), "{error}");
}
