//! An attacker with the state directory of a node: its key, its certificate and its membership.
//! Makes every call of `muster-node/1` through Muster's own endpoint.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_messages::hello::{RenewRequest, renew_reply};
use muster_messages::node::{
    ForwardRequest, ProposeRequest, RaftMessage, ReadIndexRequest, ReportRequest, SnapshotChunk,
    WatchRequest,
};
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::{Identity, node_id};
use muster_pki::tls::Credentials;
use muster_services::hello::hello_server::HelloServer;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{self, Bind, Directory, Endpoint, Peer, Trust};
use muster_transport::hello;
use muster_types::Role;
use muster_types::wire::ALPN_NODE;
use musterd::membership::Membership;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::quic_client::{
    PREFACE, RecordingVerifier, client_with, forged_certificate, socket, with_chain,
};
use super::say;

/// Timeout of each answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Calls the node at `target` with the state in `dir`. Prints `CALL: CODE message` for each call.
/// Before that it prints `Handshake:` and `Forged:`, the node's reaction to the stolen certificate
/// and to one for the stolen key from another authority.
pub async fn impersonate(dir: &Path, target: SocketAddr) -> Result<()> {
    let key = std::fs::read(dir.join("identity.key")).context("the stolen key")?;
    let identity = Arc::new(Identity::from_pkcs8(&key)?);
    let stolen =
        Membership::load(&dir.join("membership.json"))?.context("the stolen membership")?;
    let certified = stolen.certificate().context("the stolen certificate")?;
    let bundle = TrustBundle::new(certified.authorities)?;
    // First without Muster's own client, which would itself reject a node of another cluster.
    let own = with_chain(&identity, certified.chain.clone());
    say(&format!("Handshake: {}", handshake(target, own).await?))?;
    say(&format!("Forged: {}", handshake(target, forged_certificate(&identity)?).await?))?;
    let credentials = Credentials::new(&identity, certified.chain, bundle)?;
    let (trust, seen) = watch::channel(Arc::new(Trust::default()));
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    let bind = Bind { address, identity: Arc::clone(&identity), trust: seen };
    let (endpoint, listener) = Endpoint::bind(bind)?;

    // The handshake shows the target's key.
    let session = endpoint.dial_hello(target).await?;
    let peer = Peer {
        public_key: session.peer(),
        name: "target".parse()?,
        role: Role::ControlPlane,
        addresses: vec![target],
    };
    let id = node_id(&peer.public_key);
    let directory = Directory::from([(id, peer)]);
    trust.send_replace(Arc::new(Trust { credentials: Some(Arc::new(credentials)), directory }));

    let renewed = timeout(TIMEOUT, session.client().renew(RenewRequest {})).await?;
    let outcome = renewed.map(|reply| match reply.into_inner().outcome {
        Some(renew_reply::Outcome::Renewed(_)) => "renewed".to_owned(),
        Some(renew_reply::Outcome::Refused(refusal)) => {
            format!("refused {} {}", refusal.reason().as_str_name(), refusal.message)
        }
        other => format!("{other:?}"),
    });
    print_outcome("Renew", outcome)?;

    let stop = CancellationToken::new();
    let hello = hello::service(HelloServer::new(super::probe::UnimplementedHello));
    let node = endpoint::service(HelloServer::new(super::probe::UnimplementedHello));
    let serving = listener.run(hello, node, stop.clone());
    let calling = async {
        let called = make_every_call(&endpoint, id).await;
        stop.cancel();
        called
    };
    tokio::join!(serving, calling).1
}

/// Dials `muster-node/1` with this certificate, accepts any server, and sends the HTTP/2 preface.
async fn handshake(target: SocketAddr, certified: Arc<CertifiedKey>) -> Result<String> {
    let config = client_with(ALPN_NODE, certified, &RecordingVerifier::default())?;
    let connection = match socket()?.connect_with(config, target, "any")?.await {
        Ok(connection) => connection,
        Err(error) => return Ok(close_description(&error)),
    };
    // In TLS 1.3 the client finishes before the server has checked its certificate.
    let speak = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(PREFACE).await?;
        receive.read_exact(&mut [0; 9]).await?;
        anyhow::Ok(())
    };
    let spoken = timeout(TIMEOUT, speak).await.context("neither an answer nor an end")?;
    let end = match (spoken, connection.close_reason()) {
        (Ok(()), _) => "answered".to_owned(),
        (Err(_), Some(reason)) => close_description(&reason),
        (Err(error), None) => format!("{error:#}"),
    };
    connection.close(0u8.into(), b"");
    Ok(end)
}

/// Describes which side closed the connection, and how. TLS alerts are 0x100 and above (RFC 9001
/// section 4.8).
fn close_description(reason: &quinn::ConnectionError) -> String {
    match reason {
        quinn::ConnectionError::ConnectionClosed(close)
            if u64::from(close.error_code) >> 8 == 1 =>
        {
            format!("refused by the node's alert {}", u64::from(close.error_code) & 0xff)
        }
        other => other.to_string(),
    }
}

async fn make_every_call(endpoint: &Endpoint, id: muster_types::NodeId) -> Result<()> {
    let mut client = NodeClient::new(endpoint.channel(id));
    let body = || with_timeout(RaftMessage::default());
    print_outcome(
        "AppendEntries",
        client.append_entries(body()).await.map(|_| "answered".to_owned()),
    )?;
    print_outcome("RequestVote", client.request_vote(body()).await.map(|_| "answered".to_owned()))?;
    let mut pieces = Request::new(tokio_stream::once(SnapshotChunk::default()));
    pieces.set_timeout(TIMEOUT);
    print_outcome(
        "InstallSnapshot",
        client.install_snapshot(pieces).await.map(|_| "answered".to_owned()),
    )?;
    let propose = with_timeout(ProposeRequest::default());
    print_outcome("Propose", client.propose(propose).await.map(|_| "answered".to_owned()))?;
    let read = with_timeout(ReadIndexRequest {});
    print_outcome("ReadIndex", client.read_index(read).await.map(|_| "answered".to_owned()))?;
    let report = with_timeout(ReportRequest {
        addresses: vec!["10.77.0.250:50000".to_owned()],
        version: "6.6.6".to_owned(),
        etcd: Vec::new(),
    });
    print_outcome("Report", client.report(report).await.map(|_| "answered".to_owned()))?;
    let watched = client.watch(with_timeout(WatchRequest {})).await.map(|_| "answered".to_owned());
    print_outcome("Watch", watched)?;
    let forward = ForwardRequest { method: "NodeStatus".to_owned(), ..Default::default() };
    print_outcome(
        "Forward",
        client.forward(with_timeout(forward)).await.map(|_| "answered".to_owned()),
    )?;
    endpoint.send_datagram(id, bytes::Bytes::from_static(b"gossip of a stranger"));
    Ok(())
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

fn print_outcome(call: &str, outcome: Result<String, Status>) -> Result<()> {
    match outcome {
        Ok(answer) => say(&format!("{call}: OK {answer}")),
        Err(status) => say(&format!("{call}: {:?} {}", status.code(), status.message())),
    }
}
