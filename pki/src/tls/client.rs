//! TLS configurations for dialling on the QUIC endpoint.

use std::sync::Arc;

use muster_types::NodeId;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;

use super::PROVIDER;
use super::authentication::{PeerSide, TrustSource, authenticate_member};
use super::verifier::{CertVerifier, PeerError};
use crate::identity::{node_id, public_key_of};

/// Configuration to dial `muster-hello/1`: presents `own` (self-signed), accepts any peer that
/// proves an Ed25519 key. The caller reads the key from the peer's certificate and trusts it only
/// after the token proof.
pub fn hello_client_config(own: Arc<CertifiedKey>) -> ClientConfig {
    let verifier = CertVerifier::new(|presented, _| {
        public_key_of(presented.leaf).map(|_| ()).map_err(PeerError::Key)
    });
    client_config(verifier, own, ALPN_HELLO)
}

/// Configuration to dial one member on `muster-node/1`: presents the node certificate (at genesis
/// `own`), accepts only the member `expected`. For one dial: it uses the current certificate.
pub fn node_client_config(
    own: &Arc<CertifiedKey>,
    trust_source: &Arc<dyn TrustSource>,
    expected: NodeId,
) -> ClientConfig {
    let credentials = trust_source.credentials();
    let presented = credentials.map_or_else(|| Arc::clone(own), |mine| mine.certified());
    let trust_source = Arc::clone(trust_source);
    let verifier = CertVerifier::new(move |presented, now| {
        let found = node_id(&public_key_of(presented.leaf)?);
        if found != expected {
            return Err(PeerError::UnexpectedNode { expected, found });
        }
        authenticate_member(presented, PeerSide::Server, &*trust_source, now).map(|_| ())
    });
    client_config(verifier, presented, ALPN_NODE)
}

/// Common settings of all clients: mutual TLS 1.3 without resumption, early data, or the server's
/// name in the clear (SNI).
pub(super) fn client_config(
    verifier: Arc<CertVerifier>,
    own: Arc<CertifiedKey>,
    protocol: &[u8],
) -> ClientConfig {
    let own: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(own));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}
