//! TLS 1.3 configurations of Muster and their verifiers.
//!
//! Every peer proves an Ed25519 key in the handshake; no other signature is accepted, in a
//! handshake or in a chain. On `muster-hello/1` the key is the only credential. On `muster-node/1`
//! a peer must be a member and present a certificate of the cluster's machine authority. While this
//! node has no certificate itself (genesis: no authorities yet), membership of the key is enough. On the operator API the client's key must be an operator's, and the server needs a
//! certificate of a control-plane node.
//!
//! There is no resumption and no 0-RTT: every session is a full handshake. So a removed member has
//! no ticket left, and no proof is bound to replayable bytes.

mod authentication;
mod client;
#[cfg(test)]
mod fuzz;
mod operator;
mod server;
mod verifier;

use std::sync::{Arc, LazyLock};

use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};

pub use self::authentication::{
    Credentials, CredentialsError, PeerSide, TrustSource, authenticate,
};
pub use self::client::{hello_client_config, node_client_config};
pub use self::operator::{ALPN_OPERATOR, operator_client_config, operator_server_config};
pub use self::server::quic_server_config;
pub use self::verifier::{MAX_CHAIN, PeerError};

/// ring, with TLS 1.3 suites and Ed25519 only. Passed to every builder, so that nothing depends on
/// a process-wide default.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.signature_verification_algorithms =
        ed25519(provider.signature_verification_algorithms);
    Arc::new(provider)
});

fn ed25519(all: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let entry = all
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .expect("ring verifies Ed25519");
    WebPkiSupportedAlgorithms { all: entry.1, mapping: std::slice::from_ref(entry) }
}

#[cfg(test)]
mod tests;
