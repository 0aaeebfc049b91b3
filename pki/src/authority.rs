//! The cluster's certificate authorities and its service-account key. Created once, stored in the
//! replicated state, on control-plane nodes only.
//!
//! The machine authority is Ed25519, like the identities it certifies. Only Muster reads its
//! certificates, its signatures need no randomness, and the TLS layer can require one algorithm for
//! a node's whole chain. The other three are ECDSA P-256, for etcd, Kubernetes and their clients.

mod service_account;

use std::fmt;
use std::time::{Duration, SystemTime};

use muster_types::ClusterId;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::service_account::ServiceAccountKey;
use crate::identity::{ParseCertificateError, parse};
use crate::key::{Algorithm, KeyError, PrivateKey, Signer, pem};
use crate::serial::random_serial;
use crate::storage::{Public, Secret};
use crate::validity::Validity;

/// Lifetime of an authority: ten years of 365 days.
pub const LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Backdating of an authority, so that machines with slow clocks accept its leaves.
pub const BACKDATE: Duration = Duration::from_hours(24);

/// The longest common name (RFC 5280, ub-common-name), in bytes.
pub const MAX_COMMON_NAME: usize = 64;

/// Kind of an authority: the certificates it issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityKind {
    /// Nodes, for `muster-node/1` and the operator API.
    Machine,
    /// etcd's servers, peers and clients.
    Etcd,
    /// Kubernetes' servers and clients.
    Kubernetes,
    /// The API server as a proxy in front of extension API servers.
    FrontProxy,
}

impl AuthorityKind {
    /// Every authority of a cluster.
    pub const ALL: [Self; 4] = [Self::Machine, Self::Etcd, Self::Kubernetes, Self::FrontProxy];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Etcd => "etcd",
            Self::Kubernetes => "kubernetes",
            Self::FrontProxy => "front-proxy",
        }
    }

    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Machine => Algorithm::Ed25519,
            Self::Etcd | Self::Kubernetes | Self::FrontProxy => Algorithm::P256,
        }
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error of reading an [`Authority`] from storage.
#[derive(Debug, thiserror::Error)]
pub enum ReadAuthorityError {
    #[error("the {kind} authority's certificate is damaged")]
    Certificate { kind: AuthorityKind, source: ParseCertificateError },
    #[error("the {kind} authority's private key is damaged")]
    Key { kind: AuthorityKind, source: KeyError },
    #[error("the {kind} authority's certificate does not match its private key")]
    Mismatch { kind: AuthorityKind },
}

/// A certificate authority with its private key. Serializes for the Raft log, into binary formats
/// only. The key is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredAuthority", into = "StoredAuthority")]
pub struct Authority {
    kind: AuthorityKind,
    certificate: CertificateDer<'static>,
    key: PrivateKey,
    validity: Validity,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, key redacted)", self.kind)
    }
}

impl Authority {
    /// Creates a self-signed authority, valid for [`LIFETIME`]. It may sign leaves only (path
    /// length 0). All except the machine authority carry the name and id of the cluster.
    pub fn create(
        kind: AuthorityKind,
        cluster_name: &str,
        cluster: &ClusterId,
        now: SystemTime,
    ) -> Self {
        let key = PrivateKey::generate(kind.algorithm());
        let validity = Validity::new(now, BACKDATE, LIFETIME);
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::OrganizationName, "muster");
        if kind == AuthorityKind::Machine {
            // Unauthenticated peers see it, as the issuer of a node's certificate.
            name.push(rcgen::DnType::CommonName, "machine authority");
        } else {
            name.push(rcgen::DnType::OrganizationalUnitName, cluster.to_string());
            name.push(rcgen::DnType::CommonName, common_name(cluster_name, kind));
        }
        params.serial_number = Some(random_serial());
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        validity.apply_to(&mut params);
        let certificate = params
            .self_signed(&key.signer())
            .expect("a certificate without alternative names can be encoded");
        Self { kind, certificate: certificate.into(), key, validity }
    }

    pub fn kind(&self) -> AuthorityKind {
        self.kind
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as a PEM block, for a CA file.
    pub fn certificate_pem(&self) -> String {
        certificate_pem(&self.certificate)
    }

    /// The private key as a PEM block `PRIVATE KEY` (PKCS#8), for Kubernetes controllers that sign
    /// certificates. Never sent to a worker, never listed.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// End of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn issuer(&self) -> rcgen::Issuer<'static, Signer> {
        rcgen::Issuer::from_ca_cert_der(&self.certificate, self.key.signer())
            .expect("the certificate was parsed when the authority was created or read")
    }
}

/// Returns `<cluster> <kind> authority`, with the cluster's name truncated to fit.
fn common_name(cluster_name: &str, kind: AuthorityKind) -> String {
    let suffix = format!(" {kind} authority");
    let mut name = String::new();
    for c in cluster_name.chars() {
        if name.len() + c.len_utf8() + suffix.len() > MAX_COMMON_NAME {
            break;
        }
        name.push(c);
    }
    name + &suffix
}

/// A certificate as a PEM block.
pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate).to_string()
}

/// Serialized form of an [`Authority`].
#[derive(Serialize, Deserialize)]
struct StoredAuthority {
    kind: AuthorityKind,
    certificate: Public,
    key: Secret,
}

impl From<Authority> for StoredAuthority {
    fn from(authority: Authority) -> Self {
        Self {
            kind: authority.kind,
            certificate: Public(authority.certificate.to_vec()),
            key: Secret(Zeroizing::new(authority.key.pkcs8().to_vec())),
        }
    }
}

impl TryFrom<StoredAuthority> for Authority {
    type Error = ReadAuthorityError;

    fn try_from(stored: StoredAuthority) -> Result<Self, ReadAuthorityError> {
        let kind = stored.kind;
        let certificate = CertificateDer::from(stored.certificate.0);
        let key = PrivateKey::from_pkcs8(kind.algorithm(), &stored.key.0)
            .map_err(|source| ReadAuthorityError::Key { kind, source })?;
        let parsed = parse(&certificate)
            .map_err(|source| ReadAuthorityError::Certificate { kind, source })?;
        let certified = &parsed.tbs_certificate.subject_pki;
        if !parsed.is_ca() || certified.subject_public_key.data.as_ref() != key.public().bytes {
            return Err(ReadAuthorityError::Mismatch { kind });
        }
        let dates = parsed.validity();
        let validity =
            Validity::from_unix(dates.not_before.timestamp(), dates.not_after.timestamp());
        Ok(Self { kind, certificate, key, validity })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn create(kind: AuthorityKind) -> Authority {
        let now = UNIX_EPOCH + Duration::from_hours(500_000);
        Authority::create(kind, "demo", &ClusterId::from_bytes([3; 32]), now)
    }

    #[test]
    fn an_authority_reads_back_from_storage() {
        for kind in AuthorityKind::ALL {
            let authority = create(kind);
            let stored = rmp_serde::to_vec_named(&authority).unwrap();
            let again: Authority = rmp_serde::from_slice(&stored).unwrap();
            assert_eq!(again, authority);
            assert_eq!(again.validity, authority.validity);
        }
    }

    #[test]
    fn an_authority_with_another_ones_key_is_refused() {
        let (one, two) = (create(AuthorityKind::Etcd), create(AuthorityKind::Etcd));
        let mixed = Authority { key: two.key.clone(), ..one };
        let stored = rmp_serde::to_vec_named(&mixed).unwrap();
        let error = rmp_serde::from_slice::<Authority>(&stored).unwrap_err().to_string();
        assert!(error.contains("does not match its private key"), "{error}");
    }

    #[test]
    fn an_authority_is_never_printed_nor_written_as_text() {
        let authority = create(AuthorityKind::Machine);
        assert_eq!(format!("{authority:?}"), "Authority(machine, key redacted)");
        assert!(serde_json::to_string(&authority).is_err());
    }

    #[test]
    fn a_common_name_carries_the_cluster_and_fits() {
        assert_eq!(common_name("demo", AuthorityKind::Etcd), "demo etcd authority");
        let long = common_name(&"ö".repeat(60), AuthorityKind::FrontProxy);
        assert!(
            long.len() <= MAX_COMMON_NAME && long.ends_with("ö front-proxy authority"),
            "{long}"
        );
    }

    #[test]
    fn an_authority_made_by_a_clock_out_of_range_is_still_a_certificate() {
        for now in [UNIX_EPOCH, UNIX_EPOCH + Duration::from_hours(24 * 366 * 9000)] {
            let cluster = ClusterId::from_bytes([3; 32]);
            let authority = Authority::create(AuthorityKind::Etcd, "demo", &cluster, now);
            parse(authority.certificate()).unwrap();
        }
    }
}
