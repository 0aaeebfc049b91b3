//! The TCP port of a control-plane node: mutual TLS, then gRPC. A client must prove an operator's
//! key during the handshake. Handshakes and connections are bounded in number and time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use muster_pki::identity;
use muster_transport::limits::ConcurrencyLimiter;
use muster_types::PublicKey;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::debug;

use super::accept::accept;

/// Maximum number of operators' connections: some tens of people and their tools.
const MAX_CONNECTIONS: usize = 256;

/// Maximum number of concurrent handshakes, in total and per source. A client is unauthenticated
/// until its handshake ends, and may be slow. It must not occupy a slot that an operator needs.
const MAX_HANDSHAKES: usize = 128;
const MAX_HANDSHAKES_PER_SOURCE: usize = 16;

/// Time limit for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// An operator's connection.
#[derive(Debug)]
pub struct OperatorStream {
    stream: TlsStream<TcpStream>,
    peer: OperatorPeer,
    _slot: OwnedSemaphorePermit,
}

/// The operator at the other end. Stored in the extensions of every request.
#[derive(Debug, Clone)]
pub struct OperatorPeer {
    /// Key proven in the TLS handshake. Its role is looked up for every call.
    pub key: PublicKey,
    /// Address of the client, or of the worker that relays it.
    pub remote: SocketAddr,
}

impl Connected for OperatorStream {
    type ConnectInfo = OperatorPeer;

    fn connect_info(&self) -> OperatorPeer {
        self.peer.clone()
    }
}

/// Accepts connections until `stop` and passes on those that completed their handshake.
pub async fn listen(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    ready: mpsc::Sender<io::Result<OperatorStream>>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let limiter = ConcurrencyLimiter::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_SOURCE);
    let serve = |stream, remote| {
        let (config, ready, slots) = (Arc::clone(&tls), ready.clone(), Arc::clone(&slots));
        async move {
            match timeout(HANDSHAKE_TIMEOUT, handshake(stream, remote, config, slots)).await {
                Ok(Ok(stream)) => {
                    ready.send(Ok(stream)).await.ok(); // the server has stopped
                }
                Ok(Err(error)) => debug!(%remote, %error, "operator handshake failed"),
                Err(_) => debug!(%remote, "operator handshake timed out"),
            }
        }
    };
    accept(listener, limiter, serve, stop).await;
}

async fn handshake(
    stream: TcpStream,
    remote: SocketAddr,
    config: Arc<ServerConfig>,
    slots: Arc<Semaphore>,
) -> io::Result<OperatorStream> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or_else(|| io::Error::other("no client certificate"))?;
    let key = identity::public_key_of(certificate).map_err(io::Error::other)?;
    let slot = slots.try_acquire_owned().map_err(io::Error::other)?;
    Ok(OperatorStream { stream, peer: OperatorPeer { key, remote }, _slot: slot })
}

impl AsyncRead for OperatorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for OperatorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
