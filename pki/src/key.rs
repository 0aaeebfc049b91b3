//! Private keys as PKCS#8, wiped when dropped, and short-lived signers made from them. ring's key
//! pairs are not wiped, so this module keeps none beyond one call.

use std::fmt;

use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// Prefix of the 32-byte seed in the PKCS#8 version 1 form of an Ed25519 key (RFC 8410 section 7).
/// ring's version 2 form is not used, because OpenSSL 3.0 does not read it.
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .expect("getrandom does not fail on a kernel that has booted");
    bytes
}

/// A PEM block (RFC 7468) that is wiped when dropped.
pub(crate) fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut base64 = Zeroizing::new(vec![0; BASE64.encode_len(der.len())]);
    BASE64.encode_mut(der, &mut base64);
    let mut text = Zeroizing::new(String::with_capacity(base64.len() * 66 / 64 + 80));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in base64.chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Key algorithms that Muster uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Ed25519,
    P256,
}

impl Algorithm {
    pub(crate) fn rcgen(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::Ed25519 => &rcgen::PKCS_ED25519,
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

/// Error of reading a private key of a given algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#8 private key for {expected:?} ({found} bytes)")]
pub struct KeyError {
    expected: Algorithm,
    found: usize,
}

/// A private key; never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PrivateKey {
    algorithm: Algorithm,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, redacted)", self.algorithm)
    }
}

impl PrivateKey {
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        let pkcs8 = match algorithm {
            Algorithm::Ed25519 => ed25519_pkcs8(&random()),
            Algorithm::P256 => {
                let document = EcdsaKeyPair::generate_pkcs8(
                    &ECDSA_P256_SHA256_ASN1_SIGNING,
                    &SystemRandom::new(),
                )
                .expect("getrandom does not fail on a kernel that has booted");
                Zeroizing::new(document.as_ref().to_vec())
            }
        };
        Self { algorithm, pkcs8 }
    }

    pub(crate) fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let key = Self { algorithm, pkcs8: Zeroizing::new(pkcs8.to_vec()) };
        key.parse().ok_or(KeyError { expected: algorithm, found: pkcs8.len() })?;
        Ok(key)
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    pub(crate) fn signer(&self) -> Signer {
        self.parse().expect("the key was parsed when it was created")
    }

    /// The public key, as certificates carry it.
    pub(crate) fn public(&self) -> RawPublicKey {
        self.signer().public
    }

    fn parse(&self) -> Option<Signer> {
        let (pair, public) = match self.algorithm {
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(ed25519_seed(&self.pkcs8)?).ok()?;
                let public = pair.public_key().as_ref().to_vec();
                (RingKeyPair::Ed25519(Box::new(pair)), public)
            }
            Algorithm::P256 => {
                let pair = EcdsaKeyPair::from_pkcs8(
                    &ECDSA_P256_SHA256_ASN1_SIGNING,
                    &self.pkcs8,
                    &SystemRandom::new(),
                )
                .ok()?;
                let public = pair.public_key().as_ref().to_vec();
                (RingKeyPair::P256(Box::new(pair)), public)
            }
        };
        Some(Signer { pair, public: RawPublicKey { algorithm: self.algorithm, bytes: public } })
    }
}

/// Encodes an Ed25519 seed as PKCS#8 that ring, rustls, OpenSSL and Go read.
pub(crate) fn ed25519_pkcs8(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut pkcs8 = Zeroizing::new(Vec::with_capacity(ED25519_PKCS8.len() + seed.len()));
    pkcs8.extend_from_slice(&ED25519_PKCS8);
    pkcs8.extend_from_slice(seed);
    pkcs8
}

/// Returns the seed from exactly the encoding of [`ed25519_pkcs8`].
pub(crate) fn ed25519_seed(pkcs8: &[u8]) -> Option<&[u8; 32]> {
    pkcs8.strip_prefix(&ED25519_PKCS8)?.try_into().ok()
}

/// A public key, as certificates carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawPublicKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) bytes: Vec<u8>,
}

impl rcgen::PublicKeyData for RawPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm.rcgen()
    }
}

enum RingKeyPair {
    Ed25519(Box<Ed25519KeyPair>),
    P256(Box<EcdsaKeyPair>),
}

/// A parsed private key, kept for one call only.
pub(crate) struct Signer {
    pair: RingKeyPair,
    public: RawPublicKey,
}

impl rcgen::PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        &self.public.bytes
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm.rcgen()
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.pair {
            RingKeyPair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            RingKeyPair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| rcgen::Error::RingUnspecified),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_its_own_pkcs8_and_nothing_else() {
        for (algorithm, other) in
            [(Algorithm::Ed25519, Algorithm::P256), (Algorithm::P256, Algorithm::Ed25519)]
        {
            let key = PrivateKey::generate(algorithm);
            assert_eq!(PrivateKey::from_pkcs8(algorithm, key.pkcs8()).unwrap(), key);
            assert!(PrivateKey::from_pkcs8(other, key.pkcs8()).is_err());
            assert!(PrivateKey::from_pkcs8(algorithm, &key.pkcs8()[1..]).is_err());
            assert!(PrivateKey::from_pkcs8(algorithm, &[]).is_err());
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = PrivateKey::generate(Algorithm::P256);
        assert_eq!(format!("{key:?}"), "PrivateKey(P256, redacted)");
    }
}
