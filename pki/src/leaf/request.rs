//! Reads the public key of a PKCS#10 request after verifying possession of the private key. Names,
//! usages and extensions of a request are never read.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::asn1_rs::Any;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;

use super::SubjectKey;
use crate::key::{Algorithm, RawPublicKey};

/// Largest request that is parsed, in bytes.
const MAX_REQUEST: usize = 4 << 10;

/// Error of reading the key of a certificate request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request has {found} bytes, more than the {MAX_REQUEST} allowed")]
    TooLarge { found: usize },
    #[error("the bytes are not exactly one PKCS#10 certificate request (DER)")]
    Malformed,
    #[error("the request's key is neither ECDSA P-256 with SHA-256 nor Ed25519")]
    UnsupportedKey,
    #[error("the request is not signed by the key that it carries")]
    BadSignature,
}

/// Returns the key of a request (DER) after verifying that the key signed it.
pub fn public_key_of_request(request: &[u8]) -> Result<SubjectKey, RequestError> {
    if request.len() > MAX_REQUEST {
        return Err(RequestError::TooLarge { found: request.len() });
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(request) else {
        return Err(RequestError::Malformed);
    };
    let info = &request.certification_request_info.subject_pki;
    let curve = info.algorithm.parameters.as_ref().map(Any::as_oid);
    let signed_with = &request.signature_algorithm.algorithm;
    let (algorithm, verification): (_, &dyn VerificationAlgorithm) = if info.algorithm.algorithm
        == OID_SIG_ED25519
        && curve.is_none()
        && *signed_with == OID_SIG_ED25519
    {
        (Algorithm::Ed25519, &ED25519)
    } else if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(Ok(OID_EC_P256))
        && *signed_with == OID_SIG_ECDSA_WITH_SHA256
    {
        (Algorithm::P256, &ECDSA_P256_SHA256_ASN1)
    } else {
        return Err(RequestError::UnsupportedKey);
    };
    let key = info.subject_public_key.data.as_ref();
    UnparsedPublicKey::new(verification, key)
        .verify(request.certification_request_info.raw, &request.signature_value.data)
        .map_err(|_| RequestError::BadSignature)?;
    Ok(SubjectKey(RawPublicKey { algorithm, bytes: key.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use crate::leaf::KeyPair;

    #[test]
    fn a_request_gives_its_key_and_nothing_else() {
        let pair = KeyPair::generate();
        assert_eq!(public_key_of_request(&pair.request()), Ok(pair.public()));
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let mut request = KeyPair::generate().request();
        let last = request.len() - 1;
        request[last] ^= 1;
        assert_eq!(public_key_of_request(&request), Err(RequestError::BadSignature));
    }

    #[test]
    fn a_request_with_another_key_put_in_is_refused() {
        let (mine, theirs) = (KeyPair::generate(), KeyPair::generate().public().0.bytes);
        let mut request = mine.request();
        let mine = mine.public().0.bytes;
        let at = request.windows(mine.len()).position(|bytes| bytes == mine).unwrap();
        request[at..at + theirs.len()].copy_from_slice(&theirs);
        assert_eq!(public_key_of_request(&request), Err(RequestError::BadSignature));
    }

    #[test]
    fn what_is_not_exactly_a_request_is_refused() {
        let request = KeyPair::generate().request();
        for wrong in [&request[1..], &request[..9], &[], &[&request[..], &[0]].concat()] {
            assert_eq!(public_key_of_request(wrong), Err(RequestError::Malformed));
        }
        let huge = vec![0; MAX_REQUEST + 1];
        assert!(matches!(public_key_of_request(&huge), Err(RequestError::TooLarge { .. })));
    }

    #[test]
    fn an_ed25519_request_is_taken() {
        let key = PrivateKey::generate(Algorithm::Ed25519);
        let request = rcgen::CertificateParams::new(vec!["admin.example".to_owned()])
            .unwrap()
            .serialize_request(&key.signer())
            .unwrap();
        assert_eq!(public_key_of_request(request.der()), Ok(SubjectKey(key.public())));
    }
}
