//! What every check of a peer shares: bounds before anything is parsed, the handshake signature,
//! and a refusal that says why to this side only.

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
use crate::identity::{MAX_CERTIFICATE, PublicKeyOfError};

/// The most certificates that a peer may send.
pub const MAX_CHAIN: usize = 3;

/// Why a peer was refused. The peer itself sees a TLS alert without these words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the peer sent {found} certificates, and at most {MAX_CHAIN} are looked at")]
    ChainLength { found: usize },
    #[error("the peer sent a certificate of {found} bytes, more than {MAX_CERTIFICATE}")]
    CertificateSize { found: usize },
    #[error("the peer's certificate names no Ed25519 key")]
    Key(#[from] PublicKeyOfError),
    #[error("the peer offered not exactly one of the protocols that this node speaks")]
    Protocol,
    #[error("node {found} answered where node {expected} was expected")]
    OtherNode { expected: NodeId, found: NodeId },
    #[error("node {id} is not a member of this cluster")]
    NotAMember { id: NodeId },
    #[error("the certificate of node {id} does not name it")]
    NotNamed { id: NodeId },
    #[error("the peer's certificate is not that of a control-plane node")]
    NotControlPlane,
    #[error("{key} is not the key of an operator of this cluster")]
    NotAnOperator { key: PublicKey },
    #[error("the peer's certificate does not hold under this cluster's machine authority")]
    Chain(#[source] Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Chain(source) => source,
            other => CertificateError::Other(OtherError(Arc::new(other))).into(),
        }
    }
}

/// The certificates of a peer, within bounds but not yet believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
}

impl<'a> Presented<'a> {
    pub(super) fn new(
        leaf: &'a CertificateDer<'a>,
        intermediates: &'a [CertificateDer<'a>],
    ) -> Result<Self, Refusal> {
        let found = 1 + intermediates.len();
        if found > MAX_CHAIN {
            return Err(Refusal::ChainLength { found });
        }
        for certificate in std::iter::once(leaf).chain(intermediates) {
            if certificate.len() > MAX_CERTIFICATE {
                return Err(Refusal::CertificateSize { found: certificate.len() });
            }
        }
        Ok(Self { leaf, intermediates })
    }
}

/// Decides about a peer at a handshake.
type Judge = dyn Fn(Presented<'_>, UnixTime) -> Result<(), Refusal> + Send + Sync;

/// A judge in the form that rustls asks, for either side of a connection.
pub(super) struct Verifier(Box<Judge>);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn new(
        judge: impl Fn(Presented<'_>, UnixTime) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self(Box::new(judge)))
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        Ok((self.0)(Presented::new(leaf, intermediates)?, now)?)
    }
}

impl ServerCertVerifier for Verifier {
    /// The name that was dialled is not looked at: judges know better names.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
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

impl ClientCertVerifier for Verifier {
    /// Empty, so that a stranger learns no authority's name.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
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
