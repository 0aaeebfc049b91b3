//! Custom QUIC client and server: any protocol, any certificate, nothing verified, and every
//! certificate of the other side recorded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::identity::Identity;
use muster_pki::leaf::{self, Profile};
use muster_pki::tls::{Credentials, TrustSource, hello_client_config, quic_server_config};
use muster_types::{ClusterId, NodeId, Role};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// Accepts any server and records its certificates, in DER.
#[derive(Debug, Clone, Default)]
pub struct RecordingVerifier(Arc<Mutex<Vec<Vec<u8>>>>);

impl RecordingVerifier {
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Accepts any certificate.
impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut certificates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.extend(std::iter::once(leaf).chain(more).map(|der| der.to_vec()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[expect(clippy::disallowed_methods, reason = "dates of a certificate that are never checked")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// HTTP/2 connection preface (RFC 9113 section 3.4) and empty settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Returns a client for this protocol with a self-signed certificate of this identity.
pub fn client(
    alpn: &[u8],
    identity: &Identity,
    verifier: &RecordingVerifier,
) -> Result<quinn::ClientConfig> {
    client_with(alpn, identity.self_signed(now()), verifier)
}

/// Returns this identity's key with any certificate chain.
pub fn with_chain(identity: &Identity, chain: Vec<CertificateDer<'static>>) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(chain, Arc::clone(&identity.self_signed(now()).key)))
}

/// Returns a certificate for this key from a newly made authority.
pub fn forged_certificate(identity: &Identity) -> Result<Arc<CertifiedKey>> {
    let cluster = ClusterId::from_bytes(*Identity::generate().node_id().as_bytes());
    let authority = Authority::create(AuthorityKind::Machine, "forged", &cluster, now());
    let profile = Profile::Node { id: identity.node_id(), role: Role::ControlPlane };
    let leaf = leaf::issue(&authority, &profile, &identity.public_key().into(), now())?;
    Ok(with_chain(identity, leaf.chain))
}

/// Returns a client for this protocol with this certificate that accepts any server.
pub fn client_with(
    alpn: &[u8],
    certified: Arc<CertifiedKey>,
    verifier: &RecordingVerifier,
) -> Result<quinn::ClientConfig> {
    let mut config = hello_client_config(certified);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.dangerous().set_certificate_verifier(Arc::new(verifier.clone()));
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)))
}

/// Returns a client socket.
pub fn socket() -> Result<quinn::Endpoint> {
    quinn::Endpoint::client(SocketAddr::from(([0, 0, 0, 0], 0))).context("a UDP socket")
}

/// Trust source of a node without a cluster.
struct NoMembers;

impl TrustSource for NoMembers {
    fn is_member(&self, _: &NodeId) -> bool {
        false
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        None
    }
}

/// Returns a server configuration for one handshake on `muster-hello/1`, as a node has it.
pub fn server(identity: &Identity) -> Result<quinn::ServerConfig> {
    let trust_source: Arc<dyn TrustSource> = Arc::new(NoMembers);
    let config = quic_server_config(&identity.self_signed(now()), &trust_source);
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?)))
}
