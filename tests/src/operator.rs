//! Connections of an operator to single nodes, without a `musterctl` process for each call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::leaf::CONTROL_PLANE_NAME;
use muster_pki::tls::operator_client_config;
use muster_services::operator::operator_client::OperatorClient;
use muster_types::DEFAULT_PORT;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tower::service_fn;

use crate::Cluster;

/// Generated client over one connection.
pub type Client = OperatorClient<Channel>;

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

    /// Connects to one node: TCP, TLS with both sides' keys, HTTP/2.
    pub async fn connect(&self, node: Ipv4Addr) -> Result<Client> {
        let stream = TcpStream::connect(SocketAddr::new(node.into(), DEFAULT_PORT)).await?;
        stream.set_nodelay(true)?;
        let config = operator_client_config(self.identity.self_signed(now()), &self.pinned);
        let name = ServerName::try_from(CONTROL_PLANE_NAME)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let connector = service_fn(move |_| {
            let taken = stream.lock().ok().and_then(|mut stream| stream.take());
            async move { taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let endpoint =
            tonic::transport::Endpoint::from_static("http://control-plane.muster.internal");
        Ok(Client::new(endpoint.connect_with_connector(connector).await?))
    }
}

/// Current time, for certificates.
#[expect(clippy::disallowed_methods, reason = "test clients use the machine's clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
