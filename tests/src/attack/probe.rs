//! Probes by a stranger: every protocol, every call, and all that comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use muster_messages::hello::{
    AnchorReply, AnchorRequest, BirthReply, BirthRequest, GreetReply, GreetRequest, JoinReply,
    JoinRequest, ProveReply, ProveRequest, RenewReply, RenewRequest,
};
use muster_messages::node::RaftMessage;
use muster_pki::identity::Identity;
use muster_services::hello::hello_server::Hello;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{Bind, Endpoint, Trust};
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::quic_client::{RecordingVerifier, client, socket};
use super::say;

/// Time to wait for the target to close a silent connection.
const SILENCE_LIMIT: Duration = Duration::from_secs(7);

/// Prints `certificate PROTOCOL HEX` for every certificate that is shown, and all other answers.
pub async fn probe(target: SocketAddr) -> Result<()> {
    for alpn in [ALPN_HELLO, ALPN_NODE, b"h3", b"h2", b"muster-hello/2"] {
        let verifier = RecordingVerifier::default();
        let config = client(alpn, &Identity::generate(), &verifier)?;
        let name = String::from_utf8_lossy(alpn).into_owned();
        let end = match socket()?.connect_with(config, target, "any")?.await {
            Err(error) => format!("no session: {error}"),
            Ok(connection) => {
                let end = timeout(SILENCE_LIMIT, connection.closed()).await;
                end.map_or_else(|_| "still open".to_owned(), |error| format!("closed: {error}"))
            }
        };
        for der in verifier.certificates() {
            let hex: Vec<String> = der.iter().map(|byte| format!("{byte:02x}")).collect();
            say(&format!("certificate {name} {}", hex.concat()))?;
        }
        say(&format!("end {name} {end}"))?;
    }
    call_hello(target).await
}

/// Sends an empty proof, which every node audits and rejects.
pub async fn send_empty_proof(target: SocketAddr) -> Result<()> {
    let (_trust, seen) = watch::channel(Arc::new(Trust::default()));
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let bind = Bind { address, identity: Arc::new(Identity::generate()), trust: seen };
    let (endpoint, _listener) = Endpoint::bind(bind)?;
    let session = endpoint.dial_hello(target).await?;
    print_reply("Prove", session.client().prove(ProveRequest::default()).await)
}

/// Makes every call of `muster-hello/1` without a proof, and one of `muster-node/1`.
async fn call_hello(target: SocketAddr) -> Result<()> {
    let (trust, seen) = watch::channel(Arc::new(Trust::default()));
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let bind = Bind { address, identity: Arc::new(Identity::generate()), trust: seen };
    let (endpoint, _listener) = Endpoint::bind(bind)?;
    let session = endpoint.dial_hello(target).await?;
    let mut hello = session.client();
    print_reply("Greet", hello.greet(GreetRequest::default()).await)?;
    print_reply("Birth", hello.birth(BirthRequest::default()).await)?;
    print_reply("Join", hello.join(JoinRequest::default()).await)?;
    print_reply("Anchor", hello.anchor(AnchorRequest {}).await)?;
    print_reply("Renew", hello.renew(RenewRequest {}).await)?;
    let mut node = NodeClient::new(session.channel());
    print_reply("AppendEntries", node.append_entries(RaftMessage::default()).await)?;
    print_reply("Prove", hello.prove(ProveRequest::default()).await)?;
    drop(trust);
    Ok(())
}

fn print_reply<T: std::fmt::Debug>(call: &str, outcome: Result<Response<T>, Status>) -> Result<()> {
    match outcome {
        Ok(reply) => say(&format!("answer {call}: {:?} {:?}", reply.metadata(), reply.get_ref())),
        Err(status) => {
            let (code, metadata) = (status.code(), status.metadata());
            say(&format!("answer {call}: {code:?} {:?} {metadata:?}", status.message()))
        }
    }
}

/// Hello service without implementation, for an attacker that only calls.
#[derive(Debug)]
pub struct UnimplementedHello;

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(""))
}

#[tonic::async_trait]
impl Hello for UnimplementedHello {
    async fn prove(&self, _: Request<ProveRequest>) -> Result<Response<ProveReply>, Status> {
        unimplemented()
    }

    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        unimplemented()
    }

    async fn birth(&self, _: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        unimplemented()
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        unimplemented()
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        unimplemented()
    }

    async fn anchor(&self, _: Request<AnchorRequest>) -> Result<Response<AnchorReply>, Status> {
        unimplemented()
    }
}
