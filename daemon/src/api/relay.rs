//! The TCP port of a worker: relays bytes to a control-plane node and back. The TLS session is
//! between the operator and that node, so a worker can neither read nor impersonate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_transport::endpoint::Trust;
use muster_transport::limits::ConcurrencyLimiter;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accept::accept;
use crate::ports::OperatorPort;

/// Maximum number of relayed connections, in total and per source: the relay authenticates no
/// client.
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_PER_SOURCE: usize = 16;

/// Time limit for one control-plane address to accept, before the next is tried.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum age of a relayed connection: an operator's command, a snapshot download.
const MAX_CONNECTION_AGE: Duration = Duration::from_hours(1);

/// Time limit for an operator to close a connection that the node has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Relays connections to the operator port until `stop`. Waits for the port while it is busy.
pub async fn serve(
    port: OperatorPort,
    trust: watch::Receiver<Arc<Trust>>,
    stop: CancellationToken,
) {
    if let Some(listener) = stop.run_until_cancelled(port.into_listener()).await {
        relay(listener, trust, stop.clone()).await;
    }
}

async fn relay(listener: TcpListener, trust: watch::Receiver<Arc<Trust>>, stop: CancellationToken) {
    let limiter = ConcurrencyLimiter::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE);
    let serve = |operator, remote| {
        let addresses = control_plane_addresses(&trust.borrow());
        async move {
            match timeout(MAX_CONNECTION_AGE, relay_one(operator, addresses)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%remote, %error, "relayed connection failed"),
                Err(_) => debug!(%remote, "relayed connection timed out"),
            }
        }
    };
    accept(listener, limiter, serve, stop).await;
}

fn control_plane_addresses(trust: &Trust) -> Vec<SocketAddr> {
    trust.control_plane().flat_map(|(_, peer)| peer.addresses.iter().copied()).collect()
}

async fn relay_one(mut operator: TcpStream, addresses: Vec<SocketAddr>) -> io::Result<()> {
    for address in addresses {
        if let Ok(Ok(mut node)) = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            return copy_both_ways(&mut operator, &mut node).await;
        }
    }
    Err(io::Error::other("no control-plane node answers"))
}

/// Copies bytes both ways until the node has closed. Then waits only briefly for the operator, or
/// an unauthenticated client could hold the connection indefinitely.
async fn copy_both_ways(operator: &mut TcpStream, node: &mut TcpStream) -> io::Result<()> {
    let ((mut from_operator, mut to_operator), (mut from_node, mut to_node)) =
        (operator.split(), node.split());
    let up = async {
        copy(&mut from_operator, &mut to_node).await?;
        to_node.shutdown().await
    };
    let down = async {
        copy(&mut from_node, &mut to_operator).await?;
        to_operator.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => {
            ended?;
            timeout(CLOSE_TIMEOUT, up).await.unwrap_or(Ok(()))
        }
        ended = &mut up => {
            ended?;
            down.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_transport::endpoint::{Directory, Peer};
    use muster_types::{NodeId, PublicKey, Role};
    use tokio::io::AsyncReadExt as _;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    /// A relay in front of a node that sends one reply and closes.
    async fn relay_to_a_closing_node(tasks: &mut JoinSet<()>) -> SocketAddr {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Peer {
            public_key: PublicKey::from_bytes([1; 32]),
            name: "cp-1".parse().unwrap(),
            role: Role::ControlPlane,
            addresses: vec![node.local_addr().unwrap()],
        };
        let directory: Directory = BTreeMap::from([(NodeId::from_bytes([1; 32]), peer)]);
        let trust = Arc::new(Trust { credentials: None, directory });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = node.accept().await {
                stream.write_all(b"no").await.ok();
            }
        });
        let (sender, trust) = watch::channel(trust);
        tasks.spawn(async move {
            relay(listener, trust, CancellationToken::new()).await;
            drop(sender);
        });
        address
    }

    #[tokio::test]
    async fn a_client_that_keeps_closed_connections_open_does_not_block_others_for_long() {
        let mut tasks = JoinSet::new();
        let address = relay_to_a_closing_node(&mut tasks).await;
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS_PER_SOURCE {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.unwrap();
            held.push(stream);
        }
        let other_client = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut answer = Vec::new();
                if stream.read_to_end(&mut answer).await.is_ok() && answer == b"no" {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), other_client).await.expect("a slot is free again");
        drop(held);
    }
}
