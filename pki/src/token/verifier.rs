//! Token verifier: the part of a token that the cluster stores.

use std::fmt;

use ring::hkdf;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::TokenId;
use crate::storage::Secret;

/// Side of the session: dialer or listener. Each has its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that opened the session; it proves first.
    Dialer,
    /// The end that accepted it; it proves only after a valid proof of the dialer.
    Listener,
}

/// Two keys derived from a token's secret, one per direction of the proof. They check and answer
/// proofs but do not reveal the secret. They serialize for the Raft log, into binary formats only.
/// Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Secret", into = "Secret")]
pub struct Verifier {
    dialer: Zeroizing<[u8; 32]>,
    listener: Zeroizing<[u8; 32]>,
}

/// Error of reading a [`Verifier`]: wrong length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token verifier has 64 bytes, not {found}")]
pub struct VerifierError {
    found: usize,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

impl Verifier {
    /// HKDF-SHA256 (RFC 5869) over the secret, with one label per direction and the token's id.
    pub(super) fn derive(secret: &[u8; 20], id: &TokenId) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"muster token 1").extract(secret);
        let expand = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            secret
                .expand(&[label, id.as_str().as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|output| output.fill(key.as_mut_slice()))
                .expect("32 bytes are one block of HKDF-SHA256");
            key
        };
        Self {
            dialer: expand(b"muster-hello/1 the dialer proves to the listener: "),
            listener: expand(b"muster-hello/1 the listener proves to the dialer: "),
        }
    }

    /// Both keys, 64 bytes.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        bytes.extend_from_slice(self.dialer.as_slice());
        bytes.extend_from_slice(self.listener.as_slice());
        bytes
    }

    /// Reads the output of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifierError> {
        let wrong = VerifierError { found: bytes.len() };
        let (dialer, listener) = bytes.split_first_chunk::<32>().ok_or(wrong.clone())?;
        let listener: [u8; 32] = listener.try_into().map_err(|_| wrong)?;
        Ok(Self { dialer: Zeroizing::new(*dialer), listener: Zeroizing::new(listener) })
    }

    pub(crate) fn key(&self, side: Side) -> &[u8; 32] {
        match side {
            Side::Dialer => &self.dialer,
            Side::Listener => &self.listener,
        }
    }
}

impl TryFrom<Secret> for Verifier {
    type Error = VerifierError;

    fn try_from(bytes: Secret) -> Result<Self, VerifierError> {
        Self::from_bytes(&bytes.0)
    }
}

impl From<Verifier> for Secret {
    fn from(verifier: Verifier) -> Self {
        Self(verifier.to_bytes())
    }
}
