//! The birth certificate: a proposal with the signature of every founder.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use muster_pki::identity::{self, Identity};
use muster_types::{ClusterId, NodeId, NodeName, PublicKey};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::draft::Founder;
use super::proposal::{Proposal, ProposalId};

/// Domain separator before the signed proposal id, so that the signature is useless elsewhere.
const PROMISE_LABEL: &[u8] = b"muster birth promise v1\0";

/// An Ed25519 signature over a proposal id: a founder's promise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// True if the holder of `key` signed `proposal`.
    pub fn is_by(&self, key: &PublicKey, proposal: &ProposalId) -> bool {
        identity::verify(key, &promise(proposal), &self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(SignatureVisitor)
    }
}

struct SignatureVisitor;

impl Visitor<'_> for SignatureVisitor {
    type Value = Signature;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an Ed25519 signature of 64 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Signature, E> {
        let wrong = || E::invalid_length(bytes.len(), &self);
        bytes.try_into().map(Signature).map_err(|_| wrong())
    }
}

/// Signs promises with a founder's key.
pub trait Signer {
    fn sign_promise(&self, proposal: &ProposalId) -> Signature;
}

impl Signer for Identity {
    fn sign_promise(&self, proposal: &ProposalId) -> Signature {
        Signature(self.sign(&promise(proposal)))
    }
}

fn promise(proposal: &ProposalId) -> Vec<u8> {
    [PROMISE_LABEL, proposal.as_bytes()].concat()
}

/// Reasons why a set of signatures is not a valid certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("birth certificate: signature of founder {0} is missing")]
    Missing(NodeName),
    #[error("birth certificate: {} signed it but is not a founder", .0.short())]
    NotFounder(NodeId),
    #[error("birth certificate: signature of founder {0} is invalid")]
    Forged(NodeName),
}

/// A proposal signed by all its founders. Holding one does not make a node born: the founders vote
/// on it (see [`super::step`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    proposal: Arc<Proposal>,
    signatures: BTreeMap<NodeId, Signature>,
}

impl Certificate {
    /// Builds a certificate without checks, see [`Certificate::verify`].
    pub fn new(proposal: Arc<Proposal>, signatures: BTreeMap<NodeId, Signature>) -> Self {
        Self { proposal, signatures }
    }

    /// # Errors
    /// When a founder's signature is missing or invalid, or a non-founder's is present.
    pub fn verify(&self) -> Result<(), CertificateError> {
        let id = self.proposal.id();
        for founder in self.proposal.founders() {
            let signature = self
                .signatures
                .get(&founder.id())
                .ok_or_else(|| CertificateError::Missing(founder.name.clone()))?;
            if !signature.is_by(&founder.public_key, &id) {
                return Err(CertificateError::Forged(founder.name.clone()));
            }
        }
        let extra = self.signatures.keys().find(|id| self.proposal.founder(id).is_none());
        extra.map_or(Ok(()), |id| Err(CertificateError::NotFounder(*id)))
    }

    pub fn proposal(&self) -> &Arc<Proposal> {
        &self.proposal
    }

    pub fn signatures(&self) -> &BTreeMap<NodeId, Signature> {
        &self.signatures
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.proposal.cluster_id()
    }

    /// The founders, sorted by node id: the voters of the first Raft configuration.
    pub fn founders(&self) -> &[Founder] {
        self.proposal.founders()
    }

    /// The public id of the token that the founders share.
    pub fn token_id(&self) -> &str {
        self.proposal.token_id()
    }
}

impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.proposal.hash(state);
        self.signatures.len().hash(state);
    }
}
