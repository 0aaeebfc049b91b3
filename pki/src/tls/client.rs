//! TLS configurations for dialling on the QUIC endpoint.

use std::sync::Arc;

use muster_types::NodeId;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;

use super::PROVIDER;
use super::admission::{Admission, PeerSide, member};
use super::verifier::{Refusal, Verifier};
use crate::identity::{node_id, public_key_of};

/// Configuration to dial `muster-hello/1`: presents `own` (self-signed), accepts any peer that
/// proves an Ed25519 key. The caller reads the key from the peer's certificate and trusts it only
/// after the token proof.
pub fn hello_client(own: Arc<CertifiedKey>) -> ClientConfig {
    let verifier = Verifier::new(|presented, _| {
        public_key_of(presented.leaf).map(|_| ()).map_err(Refusal::Key)
    });
    client(verifier, own, ALPN_HELLO)
}

/// Configuration to dial one member on `muster-node/1`: presents the node certificate (at genesis
/// `own`), accepts only the member `expected`. For one dial: it uses the current certificate.
pub fn node_client(
    own: &Arc<CertifiedKey>,
    admission: &Arc<dyn Admission>,
    expected: NodeId,
) -> ClientConfig {
    let credentials = admission.credentials();
    let presented = credentials.map_or_else(|| Arc::clone(own), |mine| mine.certified());
    let admission = Arc::clone(admission);
    let verifier = Verifier::new(move |presented, now| {
        let found = node_id(&public_key_of(presented.leaf)?);
        if found != expected {
            return Err(Refusal::OtherNode { expected, found });
        }
        member(presented, PeerSide::Server, &*admission, now).map(|_| ())
    });
    client(verifier, presented, ALPN_NODE)
}

/// Common settings of all clients: mutual TLS 1.3 without resumption, early data, or the server's
/// name in the clear (SNI).
pub(super) fn client(
    verifier: Arc<Verifier>,
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
