//! Fuzz target of key files (see `muster_fuzz`).

use muster_fuzz::{Verdict, refused, target};

use super::Identity;
use crate::key::{Algorithm, PrivateKey};
use crate::testing::identity;

/// Key files: DER of a node, PEM of an operator.
#[test]
fn private_key() {
    let (der, pem) = (identity(1).to_pkcs8().to_vec(), identity(1).to_pem());
    target("private_key").longest(1024).seed(der).seed(pem.as_bytes()).run(|bytes| {
        let from_der = Identity::from_pkcs8(bytes);
        if let Ok(key) = &from_der {
            assert_eq!(key.to_pkcs8().as_slice(), bytes, "two spellings of one value");
        }
        if let Ok(key) = PrivateKey::from_pkcs8(Algorithm::P256, bytes) {
            assert_eq!(key.pkcs8(), bytes);
            return Verdict::Accepted;
        }
        let from_pem = std::str::from_utf8(bytes).ok().map(Identity::from_pem);
        if let Some(Ok(key)) = &from_pem {
            let again = Identity::from_pem(&key.to_pem()).expect("it was just encoded");
            assert_eq!(again.public_key(), key.public_key());
        }
        match (from_der, from_pem) {
            (Ok(_), _) | (_, Some(Ok(_))) => Verdict::Accepted,
            (Err(error), _) => refused(error),
        }
    });
}
