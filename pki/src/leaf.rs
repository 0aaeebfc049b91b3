//! Leaf certificates of nodes and of etcd: issued by an authority for a public key. Names and
//! addresses come from the registry, never from the requester.

#[cfg(test)]
mod fuzz;
mod profile;
mod request;

use std::time::{Duration, SystemTime};

use muster_types::limits::MAX_ADDRESSES;
use muster_types::{NodeId, PublicKey};
use rcgen::{KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

pub use self::profile::{CONTROL_PLANE_NAME, Profile, node_dns_name};
pub use self::request::{RequestError, public_key_of_request};
use crate::authority::{Authority, AuthorityKind, MAX_COMMON_NAME, certificate_pem};
use crate::identity::{self, ParseCertificateError, parse};
use crate::key::{Algorithm, PrivateKey, RawPublicKey};
use crate::serial::random_serial;
use crate::validity::Validity;

/// Backdating of a leaf. Three hours, so that a machine whose clock is two hours behind still takes
/// part while it reports the problem. Validity in the past gives an attacker nothing.
pub const BACKDATE: Duration = Duration::from_hours(3);

/// Lifetime of a node certificate.
pub const NODE_LIFETIME: Duration = Duration::from_hours(24);

/// Lifetime of etcd's server and peer certificates. Long enough for etcd to keep serving while the
/// Raft group that renews them has no leader for days.
pub const ETCD_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// The public key that a leaf certifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKey(RawPublicKey);

impl From<PublicKey> for SubjectKey {
    fn from(key: PublicKey) -> Self {
        Self(RawPublicKey { algorithm: Algorithm::Ed25519, bytes: key.to_vec() })
    }
}

/// An ECDSA P-256 key pair for an etcd leaf; wiped when dropped, never printed.
#[derive(Debug, Clone)]
pub struct KeyPair(PrivateKey);

impl KeyPair {
    /// Generates a new key pair from the kernel's randomness.
    pub fn generate() -> Self {
        Self(PrivateKey::generate(Algorithm::P256))
    }

    pub fn public(&self) -> SubjectKey {
        SubjectKey(self.0.public())
    }

    /// The private key as PKCS#8, DER.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.pkcs8().to_vec())
    }

    /// The private key as a PEM block `PRIVATE KEY` (PKCS#8), for a file of mode 0600.
    pub fn to_pem(&self) -> Zeroizing<String> {
        self.0.to_pem()
    }

    /// A PKCS#10 request (DER) that proves possession of the key and requests no names.
    pub fn request(&self) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&self.0.signer())
            .expect("a request without names can be encoded");
        request.der().to_vec()
    }
}

/// Error of issuing a leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("a {profile} certificate needs the {expected} authority, not {found}")]
    WrongAuthority { profile: &'static str, expected: AuthorityKind, found: AuthorityKind },
    #[error("the key to certify is not the identity key of node {id}")]
    NodeKeyMismatch { id: NodeId },
    #[error("{found} addresses exceed the limit of {MAX_ADDRESSES} per certificate")]
    TooManyAddresses { found: usize },
    #[error("a common name has 1 to {MAX_COMMON_NAME} bytes without control characters")]
    CommonName,
    #[error(
        "a {profile} certificate would not be within the validity of the {authority} authority; \
         check the clock of the issuing node, or rotate the authority"
    )]
    OutsideAuthorityValidity { profile: &'static str, authority: AuthorityKind },
}

/// Error of reading a [`Leaf`] from a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the chain is empty")]
    Empty,
    #[error("the chain's first certificate cannot be read")]
    Certificate(#[from] ParseCertificateError),
}

/// An issued certificate with its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads a chain from a message or a file.
    pub fn from_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, LeafError> {
        let dates = parse(chain.first().ok_or(LeafError::Empty)?)?.validity().clone();
        let validity =
            Validity::from_unix(dates.not_before.timestamp(), dates.not_after.timestamp());
        Ok(Self { chain, not_before: validity.not_before, not_after: validity.not_after })
    }

    /// Time of its renewal: after half of its lifetime. In the past for an expired leaf.
    pub fn renew_at(&self) -> SystemTime {
        let issued = self.not_before + BACKDATE;
        let life = self.not_after.duration_since(issued).unwrap_or_default();
        issued + life / 2
    }

    /// PEM blocks, leaf first: the form of a certificate file.
    pub fn to_pem(&self) -> String {
        self.chain.iter().map(|certificate| certificate_pem(certificate)).collect()
    }
}

/// Issues a leaf for `key`, valid from [`BACKDATE`] before `now`.
pub fn issue(
    authority: &Authority,
    profile: &Profile,
    key: &SubjectKey,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let validity = Validity::new(now, BACKDATE, profile.lifetime());
    check(authority, profile, key, validity)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, profile.common_name());
    params.serial_number = Some(random_serial());
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = profile.usages();
    let names = profile.names().into_iter().map(|name| {
        SanType::DnsName(name.try_into().expect("node names and ids are lower-case ASCII"))
    });
    params.subject_alt_names =
        names.chain(profile.addresses().into_iter().map(SanType::IpAddress)).collect();
    validity.apply_to(&mut params);
    let certificate = params
        .signed_by(&key.0, &authority.issuer())
        .expect("a certificate with checked names can be encoded");
    Ok(Leaf {
        chain: vec![certificate.into()],
        not_before: validity.not_before,
        not_after: validity.not_after,
    })
}

fn check(
    authority: &Authority,
    profile: &Profile,
    key: &SubjectKey,
    validity: Validity,
) -> Result<(), IssueError> {
    let (name, expected, found) = (profile.as_str(), profile.authority(), authority.kind());
    if expected != found {
        return Err(IssueError::WrongAuthority { profile: name, expected, found });
    }
    if let Profile::Node { id, .. } = profile {
        let certified = PublicKey::try_from(key.0.bytes.as_slice());
        if certified.map(|key| identity::node_id(&key)) != Ok(*id) {
            return Err(IssueError::NodeKeyMismatch { id: *id });
        }
    }
    let addresses = profile.node_addresses().len();
    if addresses > MAX_ADDRESSES {
        return Err(IssueError::TooManyAddresses { found: addresses });
    }
    let common_name = profile.common_name();
    if !(1..=MAX_COMMON_NAME).contains(&common_name.len())
        || common_name.chars().any(char::is_control)
    {
        return Err(IssueError::CommonName);
    }
    if !authority.validity().contains_period(&validity) {
        return Err(IssueError::OutsideAuthorityValidity { profile: name, authority: found });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
