//! etcd's certificates and keys: in memory, and in the files that etcd reads.
//!
//! etcd reads its certificate and key again for every handshake, so a renewal replaces a file and
//! needs no restart. Both are in one file, so that a replacement never pairs a new certificate with
//! an old key. etcd reads the authorities only at its start.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use muster_pki::leaf::{KeyPair, Leaf};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use muster_files::{PRIVATE_MODE, WriteError};

/// Certificates of the trusted authorities: at least one, several during a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// `None` if the list is empty: such a list would trust no certificate, which is a mistake.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        (!certificates.is_empty()).then_some(Self(certificates))
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

/// A certificate chain, leaf first, and its private key (PKCS #8, DER).
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
}

impl Credential {
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Zeroizing<Vec<u8>>) -> Self {
        Self { chain, key }
    }

    /// Credential from an issued certificate and its key.
    pub fn from_leaf(leaf: &Leaf, key: &KeyPair) -> Self {
        Self::new(leaf.chain.clone(), key.to_pkcs8())
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Encodes chain and key as one PEM text.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(chain_pem(&self.chain));
        push_pem(&mut text, "PRIVATE KEY", &self.key);
        text
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// All credentials of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub authorities: Authorities,
    /// Presented to clients. Names the client address and is also valid for client authentication,
    /// because etcd's own gateway connects to itself with it.
    pub server: Credential,
    /// Presented to other members in both directions.
    pub peer: Credential,
    /// Presented by this node's own health checks; never written to disk.
    pub client: Credential,
}

/// Paths of the credential files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialPaths {
    pub authorities: PathBuf,
    pub server: PathBuf,
    pub peer: PathBuf,
}

impl CredentialPaths {
    /// Paths below the unit's directory.
    pub fn in_dir(dir: &Path) -> Self {
        let at = |name| dir.join("tls").join(name);
        Self { authorities: at("ca.crt"), server: at("server.pem"), peer: at("peer.pem") }
    }
}

/// Writes the credential files. A running etcd uses them from its next handshake on.
pub fn write(paths: &CredentialPaths, credentials: &Credentials) -> Result<(), WriteError> {
    if let Some(directory) = paths.server.parent() {
        muster_files::create_private_directory(directory)?;
    }
    let authorities = chain_pem(&credentials.authorities.0);
    muster_files::replace_if_changed(&paths.authorities, authorities.as_bytes(), PRIVATE_MODE)?;
    muster_files::replace_if_changed(
        &paths.server,
        credentials.server.to_pem().as_bytes(),
        PRIVATE_MODE,
    )?;
    muster_files::replace_if_changed(
        &paths.peer,
        credentials.peer.to_pem().as_bytes(),
        PRIVATE_MODE,
    )
}

/// Encodes certificates as PEM.
pub fn chain_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        push_pem(&mut text, "CERTIFICATE", certificate);
    }
    text
}

/// Appends one PEM block (RFC 7468: lines of 64 characters).
fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    let encoded = Zeroizing::new(BASE64.encode(der));
    // Allocate once: a string that grows leaves copies of the key in freed memory.
    text.reserve(encoded.len() + encoded.len() / 64 + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_reads_back_and_debug_shows_no_key() {
        let key: Vec<u8> = (0..200).collect();
        let credential = Credential::new(
            vec![CertificateDer::from(vec![1; 48]), CertificateDer::from(vec![2; 47])],
            Zeroizing::new(key.clone()),
        );
        let blocks = pem_blocks(&credential.to_pem());
        let expected = [
            ("CERTIFICATE".to_owned(), vec![1; 48]),
            ("CERTIFICATE".to_owned(), vec![2; 47]),
            ("PRIVATE KEY".to_owned(), key),
        ];
        assert_eq!(blocks, expected);
        assert_eq!(format!("{credential:?}"), "Credential { chain: 2, .. }");
    }

    fn pem_blocks(text: &str) -> Vec<(String, Vec<u8>)> {
        let mut blocks = Vec::new();
        for block in text.split("-----BEGIN ").skip(1) {
            let (label, rest) = block.split_once("-----\n").unwrap();
            let (body, end) = rest.split_once("-----END ").unwrap();
            assert_eq!(end, format!("{label}-----\n"));
            assert!(body.lines().all(|line| line.len() <= 64));
            let body: String = body.lines().collect();
            blocks.push((label.to_owned(), BASE64.decode(body.as_bytes()).unwrap()));
        }
        blocks
    }
}
