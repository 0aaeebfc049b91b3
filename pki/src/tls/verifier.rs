//! Shared parts of all peer verifiers: bounds before parsing, the handshake signature, and a
//! rejection whose reason stays on this side.

use std::fmt;
use std::sync::Arc;

use muster_types::{NodeId, PublicKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::PROVIDER;
use crate::identity::{MAX_CERTIFICATE, ParseCertificateError};

/// Most certificates that a peer may send.
pub const MAX_CHAIN: usize = 3;

/// Reason for rejecting a peer. The peer sees only a TLS alert, without this text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeerError {
    #[error("the peer sent {found} certificates, more than {MAX_CHAIN}")]
    ChainLength { found: usize },
    #[error("the peer sent a certificate of {found} bytes, more than {MAX_CERTIFICATE}")]
    CertificateSize { found: usize },
    #[error("the peer's certificate has no Ed25519 key")]
    Key(#[from] ParseCertificateError),
    #[error("the peer offered zero or several of our ALPN protocols")]
    Protocol,
    #[error("the peer is node {found}, not the expected node {expected}")]
    UnexpectedNode { expected: NodeId, found: NodeId },
    #[error("node {id} is not a member of this cluster")]
    NotAMember { id: NodeId },
    #[error("the certificate of node {id} does not name it")]
    NameMismatch { id: NodeId },
    #[error("the peer's certificate is not a control-plane node's")]
    NotControlPlane,
    #[error("{key} is not the key of an operator of this cluster")]
    NotAnOperator { key: PublicKey },
    #[error("the peer's certificate does not verify under this cluster's machine authority")]
    Chain(#[source] Error),
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Chain(source) => source,
            other => CertificateError::Other(OtherError(Arc::new(other))).into(),
        }
    }
}

/// Certificates of a peer, within bounds but not verified yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresentedChain<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
}

impl<'a> PresentedChain<'a> {
    pub(super) fn new(
        leaf: &'a CertificateDer<'a>,
        intermediates: &'a [CertificateDer<'a>],
    ) -> Result<Self, PeerError> {
        let found = 1 + intermediates.len();
        if found > MAX_CHAIN {
            return Err(PeerError::ChainLength { found });
        }
        for certificate in std::iter::once(leaf).chain(intermediates) {
            if certificate.len() > MAX_CERTIFICATE {
                return Err(PeerError::CertificateSize { found: certificate.len() });
            }
        }
        Ok(Self { leaf, intermediates })
    }
}

/// Decides at a handshake whether a peer is accepted.
type CheckPeer = dyn Fn(PresentedChain<'_>, UnixTime) -> Result<(), PeerError> + Send + Sync;

/// Adapts such a decision to rustls, for either side of a connection.
pub(super) struct CertVerifier(Box<CheckPeer>);

impl fmt::Debug for CertVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertVerifier").finish_non_exhaustive()
    }
}

impl CertVerifier {
    pub(super) fn new(
        check: impl Fn(PresentedChain<'_>, UnixTime) -> Result<(), PeerError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self(Box::new(check)))
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        Ok((self.0)(PresentedChain::new(leaf, intermediates)?, now)?)
    }
}

impl ServerCertVerifier for CertVerifier {
    /// Ignores the dialled name: the decision functions check node ids and names of their own.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for CertVerifier {
    /// Empty, so that an unauthenticated peer learns no authority's name.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
