//! TLS configuration of the QUIC listener: one port, two protocols with different authentication.

use std::fmt;
use std::sync::{Arc, OnceLock};

use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use super::PROVIDER;
use super::authentication::{PeerSide, TrustSource, authenticate_member};
use super::verifier::{CertVerifier, PeerError};
use crate::identity::public_key_of;

/// The two protocols of the QUIC endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Hello,
    Node,
}

/// Server configuration for **one** incoming QUIC connection; create another for the next.
///
/// The protocol (ALPN) that the client offers decides the certificate to present and the peers to
/// accept. rustls passes it to the certificate resolver but not to the client verifier, so the two
/// share a cell that belongs to one connection. A configuration used twice rejects a second
/// connection that offers the other protocol.
///
/// - `muster-hello/1`: presents `own` (self-signed); accepts any peer that proves an Ed25519 key.
/// - `muster-node/1`: presents the node certificate (at genesis `own`); accepts members.
///
/// A client that offers both protocols, or none of them, is rejected.
pub fn quic_server_config(
    own: &Arc<CertifiedKey>,
    trust_source: &Arc<dyn TrustSource>,
) -> ServerConfig {
    let protocol = Arc::new(OnceLock::new());
    let resolver = CertResolver {
        own: Arc::clone(own),
        trust_source: Arc::clone(trust_source),
        protocol: Arc::clone(&protocol),
    };
    let trust_source = Arc::clone(trust_source);
    let verifier = CertVerifier::new(move |presented, now| match protocol.get() {
        Some(Protocol::Hello) => public_key_of(presented.leaf).map(|_| ()).map_err(PeerError::Key),
        Some(Protocol::Node) => {
            authenticate_member(presented, PeerSide::Client, &*trust_source, now).map(|_| ())
        }
        None => Err(PeerError::Protocol),
    });
    let mut config = server_config(verifier, Arc::new(resolver));
    config.alpn_protocols = vec![ALPN_HELLO.to_vec(), ALPN_NODE.to_vec()];
    config
}

/// Common settings of all servers: mutual TLS 1.3 without resumption.
pub(super) fn server_config(
    verifier: Arc<CertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

struct CertResolver {
    own: Arc<CertifiedKey>,
    trust_source: Arc<dyn TrustSource>,
    protocol: Arc<OnceLock<Protocol>>,
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertResolver").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offered = hello.alpn()?;
        let requested = match offered.next()? {
            name if name == ALPN_HELLO => Protocol::Hello,
            name if name == ALPN_NODE => Protocol::Node,
            _ => return None,
        };
        if offered.next().is_some() || *self.protocol.get_or_init(|| requested) != requested {
            return None;
        }
        let node = || self.trust_source.credentials().map(|credentials| credentials.certified());
        match requested {
            Protocol::Hello => None,
            Protocol::Node => node(),
        }
        .or_else(|| Some(Arc::clone(&self.own)))
    }
}
