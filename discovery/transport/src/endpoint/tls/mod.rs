//! Adapts pki's TLS configurations to quinn. Verifies nothing itself.

pub(crate) mod handshake;
mod redact;
pub(crate) mod trust;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use muster_pki::identity::Identity;
use muster_pki::tls::{self as pki, TrustSource};
use muster_types::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::parameters::transport;
use redact::RedactReasons;
use trust::{Trust, WatchedTrust};

/// Server name to dial. It is neither sent nor checked: peers are authenticated by their keys.
pub(crate) const SERVER_NAME: &str = "muster.internal";

/// Inputs of the TLS configurations.
#[derive(Clone)]
pub(crate) struct Tls {
    own: Arc<CertifiedKey>,
    trust_source: Arc<dyn TrustSource>,
    transport: Arc<quinn::TransportConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub(crate) fn new(identity: &Identity, trust: watch::Receiver<Arc<Trust>>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "sets the validity of a certificate whose validity is never checked"
        )]
        let now = SystemTime::now();
        Self {
            own: identity.self_signed(now),
            trust_source: Arc::new(WatchedTrust(trust)),
            transport: transport(),
        }
    }

    /// Returns the configuration for **one** incoming handshake, on either ALPN.
    pub(crate) fn server(&self) -> quinn::ServerConfig {
        let config = pki::quic_server_config(&self.own, &self.trust_source);
        let config = QuicServerConfig::try_from(config).expect("pki offers QUIC's first suite");
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(RedactReasons::new(config)));
        config
            .transport_config(Arc::clone(&self.transport))
            .migration(true)
            // Each first packet is accepted or rejected on arrival; this bounds the packets that
            // wait for that decision.
            .max_incoming(512)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(1 << 20);
        config
    }

    /// Returns the configuration for dialling any peer.
    pub(crate) fn hello_client_config(&self) -> quinn::ClientConfig {
        self.client(pki::hello_client_config(Arc::clone(&self.own)))
    }

    /// Returns the configuration for dialling exactly this member, with this node's current
    /// certificate.
    pub(crate) fn node_client_config(&self, peer: NodeId) -> quinn::ClientConfig {
        self.client(pki::node_client_config(&self.own, &self.trust_source, peer))
    }

    fn client(&self, config: rustls::ClientConfig) -> quinn::ClientConfig {
        let config = QuicClientConfig::try_from(config).expect("pki offers QUIC's first suite");
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.transport_config(Arc::clone(&self.transport));
        config
    }
}
