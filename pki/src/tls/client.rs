//! The dialling side of the QUIC endpoint.

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

/// Dials `muster-hello/1`: presents `own` (self-made), accepts whoever proves an Ed25519 key. The
/// caller learns which key from the peer's certificate, and trusts it only after the token proof.
pub fn hello_client(own: Arc<CertifiedKey>) -> ClientConfig {
    let verifier = Verifier::new(|presented, _| {
        public_key_of(presented.leaf).map(|_| ()).map_err(Refusal::Key)
    });
    client(verifier, own, ALPN_HELLO)
}

/// Dials one member on `muster-node/1`: presents the node certificate, at genesis `own`; accepts
/// nobody but the member `expected`. For one dial: the certificate is the one of this moment.
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

/// What every client has: mutual TLS 1.3 without resumption, without early data, and without the
/// name of whom it dials in the clear.
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
