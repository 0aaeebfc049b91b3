//! Signing key of Kubernetes' service-account tokens.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{Algorithm, KeyError, PrivateKey, pem};
use crate::storage::Secret;

/// Key that signs service-account tokens: ECDSA P-256 (ES256). Stored and redacted like an
/// [`super::Authority`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Secret", into = "Secret")]
pub struct ServiceAccountKey(PrivateKey);

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAccountKey(redacted)")
    }
}

impl ServiceAccountKey {
    /// A new key from the kernel's randomness.
    pub fn create() -> Self {
        Self(PrivateKey::generate(Algorithm::P256))
    }

    /// The private key as a PEM block `PRIVATE KEY` (PKCS#8).
    pub fn private_pem(&self) -> Zeroizing<String> {
        self.0.to_pem()
    }

    /// The public key as a PEM block `PUBLIC KEY`.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public_der()).to_string()
    }

    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), in hex.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(digest(&SHA256, &self.public_der()).as_ref())
    }

    fn public_der(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.0.public())
    }
}

impl From<ServiceAccountKey> for Secret {
    fn from(key: ServiceAccountKey) -> Self {
        Self(Zeroizing::new(key.0.pkcs8().to_vec()))
    }
}

impl TryFrom<Secret> for ServiceAccountKey {
    type Error = KeyError;

    fn try_from(pkcs8: Secret) -> Result<Self, KeyError> {
        PrivateKey::from_pkcs8(Algorithm::P256, &pkcs8.0).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_key_reads_back_from_storage() {
        let key = ServiceAccountKey::create();
        let stored = rmp_serde::to_vec_named(&key).unwrap();
        assert_eq!(rmp_serde::from_slice::<ServiceAccountKey>(&stored).unwrap(), key);
        assert!(rmp_serde::from_slice::<ServiceAccountKey>(&stored[..40]).is_err());
    }

    #[test]
    fn a_service_account_key_is_never_printed_nor_written_as_text() {
        let key = ServiceAccountKey::create();
        assert_eq!(format!("{key:?}"), "ServiceAccountKey(redacted)");
        assert!(serde_json::to_string(&key).is_err());
    }
}
