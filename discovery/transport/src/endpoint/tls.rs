//! Adapts pki's TLS configurations to quinn and reads the result of a finished handshake.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use muster_pki::identity::{Identity, node_id, public_key_of};
use muster_pki::proof::EXPORTER_LABEL;
use muster_pki::tls::{self as pki, TrustSource};
use muster_types::NodeId;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::guard::PeerKey;
use super::redact::RedactReasons;
use super::transport::transport;
use super::trust::{Trust, WatchedTrust};

/// Server name to dial. It is neither sent nor checked: peers are authenticated by their keys.
pub(crate) const SERVER_NAME: &str = "muster.internal";

/// Protocol of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    Hello,
    Node,
}

/// A finished handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) connection: quinn::Connection,
    pub(crate) alpn: Alpn,
    pub(crate) peer: PeerKey,
}

impl Handshake {
    /// Reads the result of the TLS handshake. The verifiers have checked it already.
    pub(crate) fn of(connection: quinn::Connection) -> Result<Self, String> {
        let data = connection.handshake_data().and_then(|data| data.downcast().ok());
        let protocol = data.and_then(|data: Box<HandshakeData>| data.protocol);
        let alpn = match protocol.as_deref() {
            Some(ALPN_HELLO) => Alpn::Hello,
            Some(ALPN_NODE) => Alpn::Node,
            Some(_) | None => return Err("no common protocol".to_owned()),
        };
        let chain = connection.peer_identity().and_then(|peer| peer.downcast().ok());
        let leaf =
            chain.and_then(|chain: Box<Vec<CertificateDer<'static>>>| chain.first().cloned());
        let leaf = leaf.ok_or("the peer presented no certificate")?;
        let public_key = public_key_of(&leaf).map_err(|e| e.to_string())?;
        let peer = PeerKey { node_id: node_id(&public_key), public_key };
        Ok(Self { connection, alpn, peer })
    }
}

/// Returns the session's keying material for the token proof.
pub(crate) fn exporter(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").ok()?;
    Some(exporter)
}

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
