//! Trust bundles: the authorities that verify peers. More than one only during a rotation.

#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::authority::certificate_pem;
use crate::identity::{ParseCertificateError, parse};
use crate::storage::Public;

/// Most authorities in one bundle; a rotation needs two.
pub const MAX_AUTHORITIES: usize = 8;

/// Error of building a [`TrustBundle`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("a trust bundle has 1 to {MAX_AUTHORITIES} authorities, not {found}")]
    Count { found: usize },
    #[error("certificate {position} of the trust bundle cannot be read")]
    Certificate { position: usize, source: ParseCertificateError },
    #[error("certificate {position} of the trust bundle is not a CA certificate")]
    NotAnAuthority { position: usize },
    #[error("the text is not a sequence of PEM blocks `CERTIFICATE`")]
    Pem,
}

/// Certificates of authorities, checked to be CA certificates. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Public>", into = "Vec<Public>")]
pub struct TrustBundle(Vec<CertificateDer<'static>>);

impl TrustBundle {
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if !(1..=MAX_AUTHORITIES).contains(&authorities.len()) {
            return Err(BundleError::Count { found: authorities.len() });
        }
        for (i, authority) in authorities.iter().enumerate() {
            let position = i + 1;
            let parsed =
                parse(authority).map_err(|source| BundleError::Certificate { position, source })?;
            let anchors = RootCertStore::empty().add(authority.clone()).is_ok();
            if !parsed.is_ca() || !anchors {
                return Err(BundleError::NotAnAuthority { position });
            }
        }
        Ok(Self(authorities))
    }

    /// Reads the certificates of a message (`machine_authorities`).
    pub fn from_der(authorities: Vec<Vec<u8>>) -> Result<Self, BundleError> {
        Self::new(authorities.into_iter().map(CertificateDer::from).collect())
    }

    /// The certificates, as messages carry them (`machine_authorities`).
    pub fn to_der(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// Reads the output of [`Self::to_pem`].
    pub fn from_pem(text: &str) -> Result<Self, BundleError> {
        let authorities: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(text.as_bytes()).take(MAX_AUTHORITIES + 1).collect();
        Self::new(authorities.map_err(|_| BundleError::Pem)?)
    }

    /// PEM blocks, one per authority: the form of a CA file.
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| certificate_pem(certificate)).collect()
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// The bundle as trust anchors for rustls.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for authority in &self.0 {
            roots.add(authority.clone()).expect("each was accepted when the bundle was created");
        }
        Arc::new(roots)
    }
}

impl From<TrustBundle> for Vec<Public> {
    fn from(bundle: TrustBundle) -> Self {
        bundle.0.iter().map(|certificate| Public(certificate.to_vec())).collect()
    }
}

impl TryFrom<Vec<Public>> for TrustBundle {
    type Error = BundleError;

    fn try_from(stored: Vec<Public>) -> Result<Self, BundleError> {
        Self::from_der(stored.into_iter().map(|bytes| bytes.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use muster_types::ClusterId;

    use super::*;
    use crate::authority::{Authority, AuthorityKind};
    use crate::identity::Identity;

    fn bundle() -> TrustBundle {
        let now = UNIX_EPOCH + Duration::from_hours(500_000);
        let cluster = ClusterId::from_bytes([3; 32]);
        let make = |kind| Authority::create(kind, "demo", &cluster, now).certificate().clone();
        TrustBundle::new(vec![make(AuthorityKind::Machine), make(AuthorityKind::Etcd)]).unwrap()
    }

    #[test]
    fn a_bundle_reads_back_from_every_form() {
        let bundle = bundle();
        assert_eq!(TrustBundle::from_der(bundle.to_der()), Ok(bundle.clone()));
        assert_eq!(TrustBundle::from_pem(&bundle.to_pem()), Ok(bundle.clone()));
        let stored = rmp_serde::to_vec_named(&bundle).unwrap();
        assert_eq!(rmp_serde::from_slice::<TrustBundle>(&stored).unwrap(), bundle);
        assert_eq!(bundle.roots().len(), 2);
    }

    #[test]
    fn a_bundle_holds_authorities_only_and_not_too_many() {
        let now = UNIX_EPOCH + Duration::from_hours(500_000);
        let leaf = Identity::generate().self_signed(now).cert[0].clone();
        assert_eq!(TrustBundle::new(vec![leaf]), Err(BundleError::NotAnAuthority { position: 1 }));
        assert_eq!(TrustBundle::new(vec![]), Err(BundleError::Count { found: 0 }));
        let many = vec![bundle().certificates()[0].clone(); MAX_AUTHORITIES + 1];
        assert!(matches!(TrustBundle::new(many), Err(BundleError::Count { .. })));
        assert!(TrustBundle::from_der(vec![vec![0x30]]).is_err());
    }
}
