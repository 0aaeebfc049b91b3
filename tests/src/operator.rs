//! Connections of an operator to single nodes, without a `musterctl` process for each call: with the
//! operator's key, and the trust anchor that `musterctl` pinned.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::leaf::CONTROL_PLANE_NAME;
use muster_pki::tls::operator_client_config;
use muster_services::operator::operator_client::OperatorClient;
use muster_types::DEFAULT_PORT;
use muster_types::wire::MAX_MESSAGE;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::Cluster;

/// Generated client over one connection.
pub type Client = OperatorClient<Channel>;

/// URI of the operator API. The connectors below ignore its host.
const API: &str = "http://control-plane.muster.internal";

/// The operator's key, and the authorities that `musterctl` has pinned.
#[derive(Debug, Clone)]
pub struct OperatorCredentials {
    identity: Arc<Identity>,
    pinned: TrustBundle,
}

impl OperatorCredentials {
    /// Reads the context on the operator's machine, after the first contact.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        cluster.ctl(&["members"])?.success().context("the first contact of musterctl")?;
        let context = cluster.context();
        let read = |name: &str| {
            let path = context.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Self {
            identity: Arc::new(Identity::from_pem(&read("operator.key")?)?),
            pinned: TrustBundle::from_pem(&read("authorities.pem")?)?,
        })
    }

    /// Connects to one node: TCP, TLS with both sides' keys, HTTP/2. Once the connection has ended,
    /// every call fails.
    pub async fn connect(&self, node: Ipv4Addr) -> Result<Client> {
        let stream = open(self.config(), SocketAddr::new(node.into(), DEFAULT_PORT)).await?;
        let stream = Mutex::new(Some(stream));
        let connector = service_fn(move |_| {
            let taken = stream.lock().ok().and_then(|mut stream| stream.take());
            async move { taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        Ok(Client::new(Endpoint::from_static(API).connect_with_connector(connector).await?))
    }

    /// Returns a client that connects to `address` on first use, and again as needed. A connection
    /// without an answer for `timeout` is replaced.
    pub fn reconnecting(
        &self,
        address: impl Fn() -> SocketAddr + Send + Sync + 'static,
        timeout: Duration,
    ) -> Client {
        let credentials = self.clone();
        let connector = service_fn(move |_| open(credentials.config(), address()));
        let channel = Endpoint::from_static(API)
            .connect_timeout(timeout)
            .http2_keep_alive_interval(timeout)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        Client::new(channel).max_decoding_message_size(MAX_MESSAGE)
    }

    fn config(&self) -> ClientConfig {
        operator_client_config(self.identity.self_signed(now()), &self.pinned)
    }
}

async fn open(
    config: ClientConfig,
    address: SocketAddr,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(CONTROL_PLANE_NAME).expect("the constant is a DNS name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(TokioIo::new)
}

/// Current time, for certificates.
#[expect(clippy::disallowed_methods, reason = "test clients use the machine's clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
