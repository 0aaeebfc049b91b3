//! Listeners that do not hold the token: men in the middle that relay proofs, and liars.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use muster_kit::{Echo, TestNode, bounded};
use muster_messages::hello::{
    AnchorReply, AnchorRequest, BirthReply, BirthRequest, GreetReply, GreetRequest, JoinReply,
    JoinRequest, ProveReply, ProveRequest, RenewReply, RenewRequest,
};
use muster_pki::identity::Identity;
use muster_pki::proof::{Side, Transcript};
use muster_pki::token::Token;
use muster_services::hello::hello_server::{Hello, HelloServer};
use muster_services::node::node_server::NodeServer;
use muster_transport::endpoint::{self, Bind, Endpoint, Trust};
use muster_transport::hello::{self, HelloSession, ProveError, RejectReason};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

use crate::ANY;

/// Man in the middle: forwards every proof it receives to the real listener.
struct Relay {
    onward: HelloSession,
    heard: Arc<Mutex<Vec<Result<ProveReply, Status>>>>,
}

#[tonic::async_trait]
impl Hello for Relay {
    async fn prove(&self, request: Request<ProveRequest>) -> Result<Response<ProveReply>, Status> {
        let reply = self.onward.client().prove(request.into_inner()).await;
        let reply = reply.map(Response::into_inner);
        self.heard.lock().unwrap().push(reply.clone());
        // Without a better reply it invents one.
        Ok(Response::new(reply.unwrap_or(ProveReply { proof: vec![7; 32] })))
    }

    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn birth(&self, _: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn anchor(&self, _: Request<AnchorRequest>) -> Result<Response<AnchorReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Attacker's endpoint with its own hello service.
struct Mallory {
    address: SocketAddr,
    _tasks: JoinSet<()>,
    _stop: DropGuard,
}

impl Mallory {
    /// Starts an attacker between its dialler and `target`.
    async fn between(
        target: SocketAddr,
        heard: Arc<Mutex<Vec<Result<ProveReply, Status>>>>,
    ) -> Self {
        let own = Arc::new(Identity::generate());
        Self::between_as([Arc::clone(&own), own], target, heard).await
    }

    /// Like `between`, with one key towards the dialler and one towards the target.
    async fn between_as(
        [shown_to_dialer, shown_to_target]: [Arc<Identity>; 2],
        target: SocketAddr,
        heard: Arc<Mutex<Vec<Result<ProveReply, Status>>>>,
    ) -> Self {
        let (trust, seen) = watch::channel(Arc::new(Trust::default()));
        let bind = |identity| {
            let bind = Bind { address: ANY.parse().unwrap(), identity, trust: seen.clone() };
            Endpoint::bind(bind).unwrap()
        };
        let (endpoint, listener) = bind(shown_to_dialer);
        let address = endpoint.local_address().unwrap();
        let onward = bind(shown_to_target).0.dial_hello(target).await.unwrap();
        let hello = hello::service(HelloServer::new(Relay { onward, heard }));
        let node = endpoint::service(NodeServer::new(Echo));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let guard = stop.clone().drop_guard();
        tasks.spawn(async move {
            listener.run(hello, node, stop).await;
            drop(trust);
        });
        Self { address, _tasks: tasks, _stop: guard }
    }
}

#[tokio::test]
async fn a_relay_in_the_middle_gains_nothing() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let token = Token::generate();
    b.accept_token(&token);
    let heard = Arc::default();
    let mallory = Mallory::between(b.address, Arc::clone(&heard)).await;
    let session = a.endpoint.dial_hello(mallory.address).await.unwrap();
    let error = bounded("a's result", session.prove(&token)).await.unwrap_err();
    assert!(matches!(error, ProveError::Impostor { .. }), "{error}");
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 1);
    let status = heard[0].as_ref().expect_err("b rejects the relay");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, ""));
    assert_eq!(b.rejections(), [RejectReason::WrongProof]);
    assert!(session.is_closed(), "a has closed the session");
}

/// The identity keys of both victims are stolen, but not the token. Each side sees the other's key,
/// so a proof binds the same values on both sides, except for the exporter.
#[tokio::test]
async fn a_relay_with_the_keys_of_both_sides_is_refused_by_the_exporter_alone() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let token = Token::generate();
    b.accept_token(&token);
    let heard = Arc::default();
    let keys = [Arc::clone(&b.identity), Arc::clone(&a.identity)];
    let mallory = Mallory::between_as(keys, b.address, Arc::clone(&heard)).await;
    let session = a.endpoint.dial_hello(mallory.address).await.unwrap();
    assert_eq!(session.peer(), b.identity.public_key(), "a sees the key of b");
    let error = bounded("a's result", session.prove(&token)).await.unwrap_err();
    assert!(matches!(error, ProveError::Impostor { .. }), "{error}");
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].is_err(), "b rejects the relay");
    let refused = b.handler.rejections.lock().unwrap().clone();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].public_key, a.identity.public_key(), "b sees the key of a");
    assert_eq!(refused[0].reason, RejectReason::WrongProof);
}

#[tokio::test]
async fn a_proof_serves_one_session_only() {
    let (a, b) = (TestNode::start(ANY), TestNode::start(ANY));
    let token = Token::generate();
    b.accept_token(&token);
    // The correct proof of the first session, built by hand.
    let session = a.endpoint.dial_hello(b.address).await.unwrap();
    let transcript = Transcript {
        exporter: session.exporter(),
        dialer: a.identity.public_key(),
        listener: b.identity.public_key(),
        token: token.id().clone(),
    };
    let proof = token.verifier().prove(Side::Dialer, &transcript).to_vec();
    let request = ProveRequest { token_id: token.id().to_string(), proof };
    session.client().prove(request.clone()).await.expect("valid on its own session");
    // The same bytes from the same node on the next session are rejected.
    let again = a.endpoint.dial_hello(b.address).await.unwrap();
    let status = again.client().prove(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, ""));
    assert_eq!(b.rejections(), [RejectReason::WrongProof]);
}

/// Replies to a proof with text crafted for logs and terminals.
struct Liar;

const LIE: &str = "no\r\n2026-01-01T00:00:00Z  INFO all is well\u{1b}[2J";

#[tonic::async_trait]
impl Hello for Liar {
    async fn prove(&self, _: Request<ProveRequest>) -> Result<Response<ProveReply>, Status> {
        Err(Status::internal(LIE.repeat(20)))
    }

    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        Err(Status::internal(LIE))
    }

    async fn birth(&self, _: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        Err(Status::internal(LIE))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Err(Status::internal(LIE))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        Err(Status::internal(LIE))
    }

    async fn anchor(&self, _: Request<AnchorRequest>) -> Result<Response<AnchorReply>, Status> {
        Err(Status::internal(LIE))
    }
}

/// The error of a failed proof goes to logs and terminals, and includes text from the peer.
#[tokio::test]
async fn a_dialled_peer_cannot_forge_log_lines() {
    let a = TestNode::start(ANY);
    let (trust, seen) = watch::channel(Arc::new(Trust::default()));
    let identity = Arc::new(Identity::generate());
    let bind = Bind { address: ANY.parse().unwrap(), identity, trust: seen };
    let (endpoint, listener) = Endpoint::bind(bind).unwrap();
    let address = endpoint.local_address().unwrap();
    let (hello, node) =
        (hello::service(HelloServer::new(Liar)), endpoint::service(NodeServer::new(Echo)));
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    tasks.spawn(listener.run(hello, node, stop));
    let session = a.endpoint.dial_hello(address).await.unwrap();
    let error = bounded("an answer", session.prove(&Token::generate())).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ProveError::Failed { .. }), "{text}");
    assert!(text.contains("all is well") && !text.contains(char::is_control), "{text:?}");
    assert!(text.len() < 700, "{} bytes", text.len());
    drop(trust);
}
