//! An operator's connection to one node, without a process of `musterctl` for each call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use muster_messages::operator::CreateTokenRequest;
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::leaf::CONTROL_PLANE_NAME;
use muster_pki::tls::operator_client_config;
use muster_pki::token::Token;
use muster_services::operator::operator_client::OperatorClient;
use muster_types::DEFAULT_PORT;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tower::service_fn;

use crate::Cluster;

/// The generated client.
pub type Client = OperatorClient<Channel>;

/// Who calls, and whom it trusts: what `musterctl` has pinned.
#[derive(Debug, Clone)]
pub struct Operator {
    identity: Arc<Identity>,
    pinned: TrustBundle,
}

impl Operator {
    /// Takes the context of the cluster's desk, after the first contact.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        cluster.ctl(&["members"])?.success().context("the first contact of musterctl")?;
        let context = cluster.context_dir();
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

/// The bytes of a write, for Muster and for its peers.
pub const WRITE_BYTES: usize = 256;

/// A write of [`WRITE_BYTES`]: the request for a new token, filled up by what the token is for. It
/// expires at once, so that any number of them fits the bounds of the state.
pub fn write() -> CreateTokenRequest {
    let token = Token::generate();
    let mut request = CreateTokenRequest {
        id: token.id().to_string(),
        verifier: token.verifier().to_bytes().to_vec(),
        roles: vec!["worker".to_owned()],
        ttl_ms: 1,
        ..CreateTokenRequest::default()
    };
    // The length of the text costs bytes of its own: a tag and, above 127, a length of two.
    let left = WRITE_BYTES - request.encoded_len();
    request.description = "x".repeat(left - if left > 129 { 3 } else { 2 });
    request
}

/// The clock on the wall, for certificates.
#[expect(clippy::disallowed_methods, reason = "the edge of the bench")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_has_256_bytes() {
        assert_eq!(write().encoded_len(), WRITE_BYTES);
    }
}
