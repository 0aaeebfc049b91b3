//! Identity of a node or an operator: an Ed25519 key (RFC 8032). It signs messages, and TLS
//! presents it in a self-signed certificate.

#[cfg(test)]
mod fuzz;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_types::{NodeId, PublicKey};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

pub use crate::key::KeyError;
use crate::key::{Algorithm, PrivateKey, ed25519_pkcs8, ed25519_seed, pem, random};
use crate::serial::random_serial;
use crate::validity::Validity;

/// Largest certificate that is parsed, in bytes. A leaf with the most addresses that
/// [`crate::leaf`] allows stays well below.
pub const MAX_CERTIFICATE: usize = 4 << 10;

/// Validity of a self-signed certificate before and after its creation. Not checked: only the key
/// counts.
const SELF_SIGNED_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);

/// Id of the node that has this key: the SHA-256 of its 32 bytes.
pub fn node_id(key: &PublicKey) -> NodeId {
    let hash = digest(&SHA256, key.as_bytes());
    NodeId::from_bytes(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Returns whether `signature` is a valid signature of `message` by `key`.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature).is_ok()
}

/// Error of reading an identity key from a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCertificateError {
    #[error("the certificate has {found} bytes, more than the {MAX_CERTIFICATE} allowed")]
    TooLarge { found: usize },
    #[error("the bytes are not exactly one X.509 certificate (DER)")]
    Malformed,
    #[error("the certificate's key is not Ed25519 (its algorithm is {algorithm})")]
    NotEd25519 { algorithm: String },
}

/// Returns a certificate's key, which must be Ed25519. Does not check the certificate's signature.
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, ParseCertificateError> {
    let certificate = parse(certificate)?;
    let info = &certificate.tbs_certificate.subject_pki;
    let bits = &info.subject_public_key;
    let algorithm = &info.algorithm;
    if algorithm.algorithm != OID_SIG_ED25519 {
        return Err(ParseCertificateError::NotEd25519 {
            algorithm: algorithm.algorithm.to_string(),
        });
    }
    if algorithm.parameters.is_some() || bits.unused_bits != 0 {
        return Err(ParseCertificateError::Malformed);
    }
    PublicKey::try_from(bits.data.as_ref()).map_err(|_| ParseCertificateError::Malformed)
}

/// Parses one certificate of bounded size without trailing bytes.
pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, ParseCertificateError> {
    if certificate.len() > MAX_CERTIFICATE {
        return Err(ParseCertificateError::TooLarge { found: certificate.len() });
    }
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(ParseCertificateError::Malformed),
    }
}

/// Error of reading an [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadIdentityError {
    #[error("the identity key is corrupt or not Ed25519")]
    Key(#[from] KeyError),
    #[error("no PEM block `PRIVATE KEY` found")]
    NoPem,
}

/// An Ed25519 private key. Its seed is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    public_key: PublicKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public_key)
    }
}

impl Identity {
    /// Generates a new identity from the kernel's randomness.
    pub fn generate() -> Self {
        Self::from_seed(random())
    }

    /// Reads the output of [`Self::to_pkcs8`]; accepts no other encoding.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, ReadIdentityError> {
        let key = PrivateKey::from_pkcs8(Algorithm::Ed25519, pkcs8)?;
        let seed = ed25519_seed(key.pkcs8()).expect("the key was read as Ed25519");
        Ok(Self::from_seed(Zeroizing::new(*seed)))
    }

    /// The key in PKCS#8 version 1 (RFC 8410), 48 bytes.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        ed25519_pkcs8(&self.seed)
    }

    /// Reads the output of [`Self::to_pem`].
    pub fn from_pem(text: &str) -> Result<Self, ReadIdentityError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ReadIdentityError::NoPem)?;
        Self::from_pkcs8(key.secret_pkcs8_der())
    }

    /// [`Self::to_pkcs8`] as a PEM block `PRIVATE KEY`, for key files of operators.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem("PRIVATE KEY", &self.to_pkcs8())
    }

    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    pub fn node_id(&self) -> NodeId {
        node_id(&self.public_key)
    }

    /// Ed25519 signature over `message`. Callers prefix their messages with a label of their own, so
    /// that a signature for one purpose is not valid for another.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = pair(&self.seed).sign(message);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// A self-signed certificate of this key, ready for TLS. It proves possession of the key and
    /// nothing else.
    pub fn self_signed(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, self.node_id().to_string());
        params.serial_number = Some(random_serial());
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        Validity::new(now, SELF_SIGNED_VALIDITY, SELF_SIGNED_VALIDITY).apply_to(&mut params);
        let key = PrivateKey::from_pkcs8(Algorithm::Ed25519, &self.to_pkcs8())
            .expect("an identity is an Ed25519 key");
        let certificate = params
            .self_signed(&key.signer())
            .expect("a certificate without external names can be encoded");
        self.certified(vec![certificate.into()])
    }

    /// The key with a certificate chain issued for it. rustls keeps the key as ring's key pair,
    /// which is not wiped, until the value is dropped.
    pub(crate) fn certified(&self, chain: Vec<CertificateDer<'static>>) -> Arc<CertifiedKey> {
        let pkcs8 = self.to_pkcs8();
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&**pkcs8))
            .expect("an identity is an Ed25519 key");
        Arc::new(CertifiedKey::new(chain, key))
    }

    fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        let public_key = PublicKey::try_from(pair(&seed).public_key().as_ref())
            .expect("an Ed25519 public key has 32 bytes");
        Self { seed, public_key }
    }
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(500_000)
    }

    #[test]
    fn an_identity_reads_back_what_it_writes() {
        let identity = Identity::generate();
        let again = Identity::from_pkcs8(&identity.to_pkcs8()).unwrap();
        assert_eq!(again.public_key(), identity.public_key());
        let again = Identity::from_pem(&identity.to_pem()).unwrap();
        assert_eq!(again.node_id(), identity.node_id());
        assert_eq!(identity.to_pkcs8().len(), 48);
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let good = Identity::generate().to_pkcs8();
        for wrong in [&good[..47], &good[1..], &[], &[&good[..], &[0]].concat()] {
            assert!(Identity::from_pkcs8(wrong).is_err(), "{} bytes", wrong.len());
        }
        assert_eq!(Identity::from_pem("hello").unwrap_err(), ReadIdentityError::NoPem);
    }

    #[test]
    fn a_node_id_is_the_hash_of_the_key() {
        let key = PublicKey::from_bytes([0; 32]);
        // SHA-256 of 32 zero bytes.
        assert_eq!(node_id(&key).as_bytes()[..4], [0x66, 0x68, 0x7a, 0xad]);
    }

    #[test]
    fn only_the_holder_signs() {
        let (one, two) = (Identity::generate(), Identity::generate());
        let signature = one.sign(b"promise");
        assert!(verify(&one.public_key(), b"promise", &signature));
        assert!(!verify(&one.public_key(), b"promises", &signature));
        assert!(!verify(&two.public_key(), b"promise", &signature));
        assert!(!verify(&one.public_key(), b"promise", &signature[..63]));
    }

    #[test]
    fn a_self_signed_certificate_carries_the_key() {
        let identity = Identity::generate();
        let certified = identity.self_signed(now());
        assert_eq!(public_key_of(&certified.cert[0]), Ok(identity.public_key()));
        certified.keys_match().unwrap();
    }

    #[test]
    fn a_certificate_that_is_not_exactly_one_ed25519_certificate_names_nobody() {
        let good = Identity::generate().self_signed(now()).cert[0].to_vec();
        let longer = [good.clone(), vec![0]].concat();
        assert_eq!(public_key_of(&longer.into()), Err(ParseCertificateError::Malformed));
        assert_eq!(public_key_of(&good[..99].into()), Err(ParseCertificateError::Malformed));
        let huge = vec![0; MAX_CERTIFICATE + 1];
        assert!(matches!(public_key_of(&huge.into()), Err(ParseCertificateError::TooLarge { .. })));
        let other = PrivateKey::generate(Algorithm::P256);
        let other = rcgen::CertificateParams::default().self_signed(&other.signer()).unwrap();
        assert!(matches!(
            public_key_of(other.der()),
            Err(ParseCertificateError::NotEd25519 { .. })
        ));
    }

    #[test]
    fn an_identity_is_never_printed() {
        let identity = Identity::generate();
        let shown = format!("{identity:?}");
        assert!(shown.starts_with("Identity(ed25519:"), "{shown}");
        assert!(!shown.contains(&data_encoding::BASE64.encode(identity.seed.as_slice())));
    }
}
