//! Custom QUIC client: any protocol, any certificate, nothing checked.

use std::sync::Arc;

use muster_pki::identity::Identity;
use muster_pki::tls::hello_client_config;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::sign::CertifiedKey;

use crate::now;

/// Returns a client that presents a self-signed certificate of this identity, or none.
pub fn raw_client(
    alpn: &[u8],
    identity: Option<&Identity>,
) -> (quinn::Endpoint, quinn::ClientConfig) {
    raw_client_with(alpn, identity.map(|identity| identity.self_signed(now())))
}

/// Returns a client that accepts any server and presents `certified` or nothing.
pub fn raw_client_with(
    alpn: &[u8],
    certified: Option<Arc<CertifiedKey>>,
) -> (quinn::Endpoint, quinn::ClientConfig) {
    let no_certificate = certified.is_none();
    let own = certified.unwrap_or_else(|| Identity::generate().self_signed(now()));
    let mut config = hello_client_config(own);
    if no_certificate {
        config.client_auth_cert_resolver = Arc::new(Nothing);
    }
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    (quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(), config)
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
