//! Authentication of peers on `muster-node/1`: a member, by the key that it proves, with a
//! certificate of the machine authority as soon as this node has an authority to verify it.

use std::fmt;
use std::sync::Arc;

use muster_types::{NodeId, PublicKey};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::PROVIDER;
use super::verifier::{PeerError, PresentedChain};
use crate::bundle::TrustBundle;
use crate::identity::{Identity, ParseCertificateError, node_id, public_key_of};
use crate::leaf::node_dns_name;

/// Current membership and credentials of the node. Called within the handshake, so implementations
/// answer from memory without blocking.
pub trait TrustSource: Send + Sync {
    /// Returns whether the registry (at genesis: the birth certificate) contains this node.
    fn is_member(&self, node: &NodeId) -> bool;

    /// This node's certificate and authorities; `None` at genesis.
    fn credentials(&self) -> Option<Arc<Credentials>>;
}

/// Error of building [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate chain is empty")]
    Empty,
    #[error("the node certificate cannot be read")]
    Certificate(#[from] ParseCertificateError),
    #[error("the node certificate is not for this node's identity key")]
    KeyMismatch,
}

/// A node certificate with its key, and the authorities that verify peers, ready for handshakes.
/// Create one per certificate, not one per handshake.
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    bundle: TrustBundle,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} authorities, key redacted)", self.bundle.certificates().len())
    }
}

impl Credentials {
    /// Combines a chain (leaf first) issued for `identity` with the authorities of its cluster.
    pub fn new(
        identity: &Identity,
        chain: Vec<CertificateDer<'static>>,
        bundle: TrustBundle,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain.first().ok_or(CredentialsError::Empty)?;
        if public_key_of(leaf)? != identity.public_key() {
            return Err(CredentialsError::KeyMismatch);
        }
        let roots = bundle.roots();
        let provider = Arc::clone(&PROVIDER);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider)
            .build()
            .expect("a trust bundle is never empty");
        Ok(Self { certified: identity.certified(chain), bundle, roots, clients })
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn check(
        &self,
        presented: PresentedChain<'_>,
        side: PeerSide,
        now: UnixTime,
    ) -> Result<(), PeerError> {
        let PresentedChain { leaf, intermediates } = presented;
        match side {
            PeerSide::Client => self
                .clients
                .verify_client_cert(leaf, intermediates, now)
                .map(|_| ())
                .map_err(PeerError::Chain),
            PeerSide::Server => check_server(presented, &self.roots, now),
        }
    }
}

/// End of the connection at which the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerSide {
    Client,
    Server,
}

/// Checks that the peer with this certificate chain (leaf first, as in rustls) is a member now.
/// For an existing session, the handshake has proved possession of the key.
pub fn authenticate(
    chain: &[CertificateDer<'_>],
    side: PeerSide,
    trust_source: &dyn TrustSource,
    now: UnixTime,
) -> Result<PublicKey, PeerError> {
    let (leaf, rest) = chain.split_first().ok_or(PeerError::ChainLength { found: 0 })?;
    authenticate_member(PresentedChain::new(leaf, rest)?, side, trust_source, now)
}

pub(super) fn authenticate_member(
    presented: PresentedChain<'_>,
    side: PeerSide,
    trust_source: &dyn TrustSource,
    now: UnixTime,
) -> Result<PublicKey, PeerError> {
    let key = public_key_of(presented.leaf)?;
    let id = node_id(&key);
    if !trust_source.is_member(&id) {
        return Err(PeerError::NotAMember { id });
    }
    // At genesis members have no certificates, so only the key can be checked.
    if let Some(credentials) = trust_source.credentials() {
        credentials.check(presented, side, now)?;
        if !is_named(presented.leaf, node_dns_name(&id))? {
            return Err(PeerError::NameMismatch { id });
        }
    }
    Ok(key)
}

/// Checks that a server's chain ends at one of `roots` and is valid at `now`.
pub(super) fn check_server(
    presented: PresentedChain<'_>,
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), PeerError> {
    let leaf = ParsedCertificate::try_from(presented.leaf).map_err(PeerError::Chain)?;
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(
        &leaf,
        roots,
        presented.intermediates,
        now,
        algorithms,
    )
    .map_err(PeerError::Chain)
}

pub(super) fn is_named(leaf: &CertificateDer<'_>, name: String) -> Result<bool, PeerError> {
    let leaf = ParsedCertificate::try_from(leaf).map_err(PeerError::Chain)?;
    let name = ServerName::try_from(name).expect("names of nodes are DNS names");
    Ok(verify_server_name(&leaf, &name).is_ok())
}
