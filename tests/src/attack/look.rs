//! A stranger that looks: every protocol, every call, and a note of all that comes back.

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

use super::say;
use super::stranger::{Shown, client, socket};

/// How long a connection that says nothing is listened to.
const QUIET: Duration = Duration::from_secs(7);

/// Says `certificate HEX` for every certificate that is shown, and what else is answered.
pub async fn look(target: SocketAddr) -> Result<()> {
    for alpn in [ALPN_HELLO, ALPN_NODE, b"h3", b"h2", b"muster-hello/2"] {
        let shown = Shown::default();
        let config = client(alpn, &Identity::generate(), &shown)?;
        let name = String::from_utf8_lossy(alpn).into_owned();
        let end = match socket()?.connect_with(config, target, "any")?.await {
            Err(error) => format!("no session: {error}"),
            Ok(connection) => {
                let end = timeout(QUIET, connection.closed()).await;
                end.map_or_else(|_| "still open".to_owned(), |error| format!("closed: {error}"))
            }
        };
        for der in shown.certificates() {
            let hex: Vec<String> = der.iter().map(|byte| format!("{byte:02x}")).collect();
            say(&format!("certificate {name} {}", hex.concat()))?;
        }
        say(&format!("end {name} {end}"))?;
    }
    ask(target).await
}

/// Shows an empty proof of no token, which every node writes down, and is refused.
pub async fn knock(target: SocketAddr) -> Result<()> {
    let (_trust, seen) = watch::channel(Arc::new(Trust::default()));
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let bind = Bind { address, identity: Arc::new(Identity::generate()), trust: seen };
    let (endpoint, _listener) = Endpoint::bind(bind)?;
    let session = endpoint.dial_hello(target).await?;
    answered("Prove", session.client().prove(ProveRequest::default()).await)
}

/// Makes every call of `muster-hello/1` without a proof, and one of `muster-node/1`.
async fn ask(target: SocketAddr) -> Result<()> {
    let (trust, seen) = watch::channel(Arc::new(Trust::default()));
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let bind = Bind { address, identity: Arc::new(Identity::generate()), trust: seen };
    let (endpoint, _listener) = Endpoint::bind(bind)?;
    let session = endpoint.dial_hello(target).await?;
    let mut hello = session.client();
    answered("Greet", hello.greet(GreetRequest::default()).await)?;
    answered("Birth", hello.birth(BirthRequest::default()).await)?;
    answered("Join", hello.join(JoinRequest::default()).await)?;
    answered("Anchor", hello.anchor(AnchorRequest {}).await)?;
    answered("Renew", hello.renew(RenewRequest {}).await)?;
    let mut node = NodeClient::new(session.channel());
    answered("AppendEntries", node.append_entries(RaftMessage::default()).await)?;
    answered("Prove", hello.prove(ProveRequest::default()).await)?;
    drop(trust);
    Ok(())
}

fn answered<T: std::fmt::Debug>(call: &str, outcome: Result<Response<T>, Status>) -> Result<()> {
    match outcome {
        Ok(reply) => say(&format!("answer {call}: {:?} {:?}", reply.metadata(), reply.get_ref())),
        Err(status) => {
            let (code, metadata) = (status.code(), status.metadata());
            say(&format!("answer {call}: {code:?} {:?} {metadata:?}", status.message()))
        }
    }
}

/// Answers nothing: what an attacker serves who only calls.
#[derive(Debug)]
pub struct Mute;

fn nothing<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(""))
}

#[tonic::async_trait]
impl Hello for Mute {
    async fn prove(&self, _: Request<ProveRequest>) -> Result<Response<ProveReply>, Status> {
        nothing()
    }

    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        nothing()
    }

    async fn birth(&self, _: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        nothing()
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        nothing()
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        nothing()
    }

    async fn anchor(&self, _: Request<AnchorRequest>) -> Result<Response<AnchorReply>, Status> {
        nothing()
    }
}
