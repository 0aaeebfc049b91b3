//! The membership file: a member's cluster, role, credentials and peers. With it, every member
//! rejoins by itself after a power cut of the whole cluster. Contains no private key.

#[cfg(test)]
mod compat;
#[cfg(test)]
mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use muster_formation::birth;
use muster_messages::hello::Admitted;
use muster_pki::token::TokenId;
use muster_pki::{CertificateDer, identity};
use muster_transport::endpoint::{Directory, Peer};
use muster_types::format::{self, NewerFormat, RecordError};
use muster_types::{ClusterId, NodeId, NodeName, PublicKey, Role};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::fatal::REINITIALISE;

/// Maximum size of the file in bytes: 10,000 members and some certificates.
const MAX_FILE: u64 = 8 << 20;

/// Format of the file that this build writes, and the newest it reads.
const FORMAT: u32 = 1;

/// A node's membership in its cluster, as stored on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    format: u32,
    pub cluster_id: ClusterId,
    pub cluster_name: String,
    pub role: Role,
    /// Id of the token of this node's configuration, for a start without it. Nodes announce it on the
    /// link, where it distinguishes clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<TokenId>,
    /// Node certificate chain, DER in base64. Empty until the cluster has an authority.
    chain: Vec<Base64>,
    authorities: Vec<Base64>,
    peers: BTreeMap<NodeId, KnownPeer>,
}

/// A node certificate and the authorities that other nodes are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// Certificate chain in DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Certificates of the machine authority, in DER.
    pub authorities: Vec<CertificateDer<'static>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownPeer {
    public_key: PublicKey,
    name: NodeName,
    role: Role,
    addresses: Vec<SocketAddr>,
}

/// Bytes, serialised as base64.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&data_encoding::BASE64.encode_display(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Error of reading the membership file, or of using the reply to a join.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} is corrupt ({why}); it is written atomically, so a power cut cannot explain this; \
         {REINITIALISE}",
        path.display()
    )]
    Corrupt { path: PathBuf, why: String },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error("malformed reply to the join request: {0}")]
    Reply(String),
}

impl Membership {
    /// Creates a founder's membership: peers from the birth certificate, no credentials yet.
    pub fn from_birth(certificate: &birth::Certificate, cluster_name: &str) -> Self {
        let founders = certificate.founders().iter().map(|founder| Peer {
            public_key: founder.public_key,
            name: founder.name.clone(),
            role: Role::ControlPlane,
            addresses: founder.addresses.clone(),
        });
        Self {
            format: FORMAT,
            cluster_id: certificate.cluster_id(),
            cluster_name: cluster_name.to_owned(),
            role: Role::ControlPlane,
            token_id: certificate.token_id().parse().ok(),
            chain: Vec::new(),
            authorities: Vec::new(),
            peers: founders
                .map(|peer| (identity::node_id(&peer.public_key), peer.into()))
                .collect(),
        }
    }

    /// Creates the membership of a node that was admitted or renewed.
    pub fn from_admission(answer: &Admitted, role: Role) -> Result<Self, MembershipError> {
        let malformed = |what: &str| MembershipError::Reply(what.to_owned());
        let cluster_id = ClusterId::try_from(answer.cluster_id.as_slice())
            .map_err(|error| MembershipError::Reply(error.to_string()))?;
        let credentials = answer.credentials.as_ref().ok_or_else(|| malformed("no credentials"))?;
        if credentials.certificate_chain.is_empty() || credentials.machine_authorities.is_empty() {
            return Err(malformed("empty credentials"));
        }
        let mut membership = Self {
            format: FORMAT,
            cluster_id,
            cluster_name: answer.cluster_name.clone(),
            role,
            token_id: None,
            chain: credentials.certificate_chain.iter().cloned().map(Base64).collect(),
            authorities: credentials.machine_authorities.iter().cloned().map(Base64).collect(),
            peers: BTreeMap::new(),
        };
        membership.set_peers(&convert::directory(&answer.peers));
        Ok(membership)
    }

    /// Returns this node's certificate and the authorities it trusts. `None` at genesis.
    pub fn certificate(&self) -> Option<NodeCertificate> {
        let der = |blobs: &[Base64]| -> Vec<CertificateDer<'static>> {
            blobs.iter().map(|blob| CertificateDer::from(blob.0.clone())).collect()
        };
        (!self.chain.is_empty()).then(|| NodeCertificate {
            chain: der(&self.chain),
            authorities: der(&self.authorities),
        })
    }

    /// Replaces the certificate.
    pub fn set_certificate(&mut self, certificate: &NodeCertificate) {
        let blobs = |list: &[CertificateDer<'static>]| -> Vec<Base64> {
            list.iter().map(|der| Base64(der.as_ref().to_vec())).collect()
        };
        self.chain = blobs(&certificate.chain);
        self.authorities = blobs(&certificate.authorities);
    }

    /// Returns the members that this node knows.
    pub fn directory(&self) -> Directory {
        self.peers.iter().map(|(id, peer)| (*id, peer.clone().into())).collect()
    }

    /// Returns the name of a member in the cluster, if it is known.
    pub fn name_of(&self, node: &NodeId) -> Option<NodeName> {
        self.peers.get(node).map(|peer| peer.name.clone())
    }

    /// Replaces the known members.
    pub fn set_peers(&mut self, directory: &Directory) {
        self.peers = directory.iter().map(|(id, peer)| (*id, peer.clone().into())).collect();
    }

    /// Reads the file. `None` if this node has never belonged to a cluster.
    pub fn load(path: &Path) -> Result<Option<Self>, MembershipError> {
        let read = |source| MembershipError::Read { path: path.to_owned(), source };
        let bytes = match fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(read(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
            }
            Ok(_) => fs::read(path).map_err(read)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let corrupt = |why| MembershipError::Corrupt { path: path.to_owned(), why };
        let contents = unseal(&bytes).ok_or_else(|| corrupt("wrong checksum".to_owned()))?;
        let (header, record) =
            (|| serde_json::from_slice(&contents), || serde_json::from_slice(&contents));
        format::parse(FORMAT, header, record).map(Some).map_err(|error| match error {
            RecordError::Newer(newer) => MembershipError::Newer { path: path.to_owned(), newer },
            RecordError::Malformed(error) => corrupt(error.to_string()),
        })
    }

    /// Replaces the file durably.
    pub fn save(&self, path: &Path) -> Result<(), muster_files::WriteError> {
        let bytes = serde_json::to_vec(self).expect("plain data with text keys");
        muster_files::replace(path, &seal(&bytes), muster_files::PRIVATE_MODE)
    }
}

/// Text around the checksum. The file is one JSON object whose first field is the checksum of the
/// object without that field.
const CHECKSUM_PREFIX: &[u8] = b"{\"sha256\":\"";
const CHECKSUM_SUFFIX: &[u8] = b"\",";

/// Adds the checksum to a JSON object that has other fields.
fn seal(object: &[u8]) -> Vec<u8> {
    let sum = HEXLOWER.encode(digest(&SHA256, object).as_ref());
    [CHECKSUM_PREFIX, sum.as_bytes(), CHECKSUM_SUFFIX, &object[1..]].concat()
}

/// Returns the object without its checksum, if the checksum matches.
fn unseal(sealed: &[u8]) -> Option<Vec<u8>> {
    let (sum, rest) =
        sealed.strip_prefix(CHECKSUM_PREFIX)?.split_at_checked(2 * SHA256.output_len())?;
    let object = [b"{", rest.strip_prefix(CHECKSUM_SUFFIX)?].concat();
    let expected = HEXLOWER.encode(digest(&SHA256, &object).as_ref());
    (expected.as_bytes() == sum).then_some(object)
}

impl From<Peer> for KnownPeer {
    fn from(peer: Peer) -> Self {
        let Peer { public_key, name, role, addresses } = peer;
        Self { public_key, name, role, addresses }
    }
}

impl From<KnownPeer> for Peer {
    fn from(peer: KnownPeer) -> Self {
        let KnownPeer { public_key, name, role, addresses } = peer;
        Self { public_key, name, role, addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_flipped_file_is_an_error_and_never_another_membership() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("membership.json");
        let membership = Membership {
            format: FORMAT,
            cluster_id: ClusterId::from_bytes([7; 32]),
            cluster_name: "demo".to_owned(),
            role: Role::Worker,
            token_id: None,
            chain: vec![Base64(vec![1; 40])],
            authorities: vec![Base64(vec![2; 40])],
            peers: BTreeMap::new(),
        };
        membership.save(&path).unwrap();
        assert_eq!(Membership::load(&path).unwrap(), Some(membership));
        let whole = fs::read(&path).unwrap();
        serde_json::from_slice::<serde_json::Value>(&whole).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x01;
            for damaged in [&flipped, &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                let error = Membership::load(&path).unwrap_err().to_string();
                assert!(error.contains("membership.json is corrupt"), "byte {at}: {error}");
            }
        }
    }
}
