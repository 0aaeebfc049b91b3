//! The TCP port of a worker: passes bytes to a control-plane node and back. The TLS session is
//! between the operator and that node, so a worker sees nothing and can stand in for nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_discovery::endpoint::Trust;
use muster_proto::Role;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Relayed connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// How long one control-plane address may take to answer before the next is tried.
const DIAL: Duration = Duration::from_secs(1);

/// The longest that one relayed connection lives: an operator's command, a snapshot download.
const MAX_LIFE: Duration = Duration::from_hours(1);

/// How long to wait when the machine has no file handle left for another connection.
const OUT_OF_HANDLES: Duration = Duration::from_millis(200);

/// Relays until `stop`.
pub async fn relay(
    listener: TcpListener,
    trust: watch::Receiver<Arc<Trust>>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((operator, remote)) = accepted else {
            sleep(OUT_OF_HANDLES).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue; // dropping the stream closes it
        };
        let addresses = control_plane(&trust.borrow());
        connections.spawn(async move {
            let _slot = slot;
            match timeout(MAX_LIFE, pass(operator, addresses)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%remote, %error, "relay"),
                Err(_) => debug!(%remote, "a relayed connection was open for too long"),
            }
        });
    }
}

fn control_plane(trust: &Trust) -> Vec<SocketAddr> {
    let peers = trust.directory.values().filter(|peer| peer.role == Role::ControlPlane);
    peers.flat_map(|peer| peer.addresses.iter().copied()).collect()
}

async fn pass(mut operator: TcpStream, addresses: Vec<SocketAddr>) -> io::Result<()> {
    for address in addresses {
        if let Ok(Ok(mut node)) = timeout(DIAL, TcpStream::connect(address)).await {
            copy_bidirectional(&mut operator, &mut node).await?;
            return Ok(());
        }
    }
    Err(io::Error::other("no control-plane node answers"))
}
