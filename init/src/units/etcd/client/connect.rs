//! Connections to etcd: TCP, mutual TLS, HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::units::etcd::credentials::{Authorities, Credential};

/// Timeout for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to wait for the server's first bytes after the handshake before sending anyway.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_millis(500);

/// Idle time before an HTTP/2 keep-alive ping.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of that ping, after which the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Credentials that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot use an authority's certificate")]
    Authority(#[source] rustls::Error),
    #[error("cannot use the certificate and key")]
    Certificate(#[source] rustls::Error),
}

/// TLS client configuration with one member's or client's credentials.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Configuration that trusts these authorities and presents this certificate.
    pub fn new(authorities: &Authorities, own: &Credential) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities.certificates() {
            roots.add(authority.clone()).map_err(CredentialsError::Authority)?;
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key().to_vec()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(CredentialsError::Certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(own.chain().to_vec(), key)
            .map_err(CredentialsError::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Connects and completes the handshake, which a hanging process cannot.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(to.ip().into());
        TlsConnector::from(Arc::clone(&self.0)).connect(name, tcp).await
    }

    /// Returns a channel that connects on first use and reconnects as needed, with a counter of its
    /// connections.
    pub(super) fn channel(&self, to: SocketAddr) -> (Channel, Connections) {
        let tls = self.clone();
        let connections = Connections::default();
        let count = connections.clone();
        // The scheme has no meaning here: the connector always uses TLS.
        let uri = Uri::builder().scheme("http").authority(to.to_string()).path_and_query("/");
        let uri = uri.build().expect("an address is an authority");
        let channel = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (tls, count) = (tls.clone(), count.clone());
                async move {
                    let stream = wait_for_first_bytes(tls.connect(to).await?).await?;
                    count.0.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, io::Error>(TokioIo::new(stream))
                }
            }));
        (channel, connections)
    }
}

/// Counter of a channel's connections. If it did not change between two calls, the same process
/// answered both.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<AtomicU64>);

impl Connections {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Waits for the first bytes from the server. In TLS 1.3 the client's handshake ends before the
/// server has verified the client's certificate. A rejection arrives in place of the HTTP/2
/// settings. Waiting for either turns it into an error of this connection, not endless retries.
async fn wait_for_first_bytes(
    stream: TlsStream<TcpStream>,
) -> io::Result<BufReader<TlsStream<TcpStream>>> {
    let mut stream = BufReader::new(stream);
    match timeout(FIRST_BYTES_TIMEOUT, stream.fill_buf()).await {
        Ok(Ok([])) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by etcd")),
        Ok(Err(error)) => Err(error),
        // A server may also wait for the client's first bytes.
        Ok(Ok(_)) | Err(_) => Ok(stream),
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
