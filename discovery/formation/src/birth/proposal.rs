//! The proposal that the founders agree on, and its identifier.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use muster_pki::identity;
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_TOKEN_ID};
use muster_types::{ClusterId, NodeId, NodeName, PublicKey};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// One of the machines that a proposal names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    pub public_key: PublicKey,
    pub name: NodeName,
    /// Addresses of the founder, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// The founder's epoch when the proposal was drafted: it signs one proposal per epoch.
    pub epoch: u64,
}

impl Founder {
    pub fn id(&self) -> NodeId {
        identity::node_id(&self.public_key)
    }
}

/// SHA-256 of the canonical encoding of a proposal. Founders sign this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId([u8; 32]);

impl ProposalId {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ClusterId::from_bytes(self.0).short())
    }
}

/// The parts of a proposal, unchecked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub token_id: String,
    pub founders: Vec<Founder>,
    /// 32 random bytes, chosen by the proposer.
    pub nonce: [u8; 32],
    /// Digest of the birth fields, see [`config_digest`].
    pub config_digest: [u8; 32],
    pub proposer: NodeId,
}

/// Reasons why a draft is not a valid proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    #[error("a birth takes 1 to {MAX_FOUNDERS} founders, not {0}")]
    Founders(usize),
    #[error("founders are not sorted by node id, or one is named twice")]
    Order,
    #[error("two founders have the name {0}")]
    Name(NodeName),
    #[error("founder {name} has {found} addresses; at most {MAX_ADDRESSES} are allowed")]
    Addresses { name: NodeName, found: usize },
    #[error("the proposer {} is not one of the founders", .0.short())]
    Proposer(NodeId),
    #[error("a token id has 1 to {MAX_TOKEN_ID} bytes, not {0}")]
    TokenId(usize),
}

/// A well-formed proposal. Immutable, so that its id always matches its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Draft", into = "Draft")]
pub struct Proposal {
    draft: Draft,
    id: ProposalId,
    /// The ids of `draft.founders`, in the same order.
    ids: Vec<NodeId>,
}

impl Proposal {
    /// # Errors
    /// Unless the draft names 1 to [`MAX_FOUNDERS`] founders, sorted by id, with distinct names and
    /// the proposer among them.
    pub fn new(draft: Draft) -> Result<Self, ProposalError> {
        let ids: Vec<_> = draft.founders.iter().map(Founder::id).collect();
        if ids.is_empty() || ids.len() > MAX_FOUNDERS {
            return Err(ProposalError::Founders(ids.len()));
        }
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err(ProposalError::Order);
        }
        let mut names = BTreeSet::new();
        for founder in &draft.founders {
            if !names.insert(&founder.name) {
                return Err(ProposalError::Name(founder.name.clone()));
            }
            let found = founder.addresses.len();
            if found > MAX_ADDRESSES {
                return Err(ProposalError::Addresses { name: founder.name.clone(), found });
            }
        }
        if !ids.contains(&draft.proposer) {
            return Err(ProposalError::Proposer(draft.proposer));
        }
        if draft.token_id.is_empty() || draft.token_id.len() > MAX_TOKEN_ID {
            return Err(ProposalError::TokenId(draft.token_id.len()));
        }
        let id = draft.id();
        Ok(Self { draft, id, ids })
    }

    pub fn id(&self) -> ProposalId {
        self.id
    }

    /// The id of the cluster if this proposal is born.
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::from_bytes(self.id.0)
    }

    pub fn proposer(&self) -> NodeId {
        self.draft.proposer
    }

    pub fn token_id(&self) -> &str {
        &self.draft.token_id
    }

    pub fn nonce(&self) -> &[u8; 32] {
        &self.draft.nonce
    }

    pub fn config_digest(&self) -> &[u8; 32] {
        &self.draft.config_digest
    }

    /// Sorted by node id.
    pub fn founders(&self) -> &[Founder] {
        &self.draft.founders
    }

    /// The node ids of the founders, sorted.
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    pub fn founder(&self, id: &NodeId) -> Option<&Founder> {
        self.ids.binary_search(id).ok().map(|at| &self.draft.founders[at])
    }

    /// The smallest number that is more than half of the founders.
    pub fn majority(&self) -> usize {
        self.ids.len() / 2 + 1
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Proposal {}

impl Hash for Proposal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl TryFrom<Draft> for Proposal {
    type Error = ProposalError;

    fn try_from(draft: Draft) -> Result<Self, ProposalError> {
        Self::new(draft)
    }
}

impl From<Proposal> for Draft {
    fn from(proposal: Proposal) -> Self {
        proposal.draft
    }
}

impl Draft {
    /// Hashes the canonical encoding: a label, then every field. Lists and texts are preceded by
    /// their length; numbers are eight bytes big-endian. Never changes for version 1.
    fn id(&self) -> ProposalId {
        let mut encoder = Encoder::new("muster birth proposal v1");
        encoder.bytes(self.token_id.as_bytes());
        encoder.number(self.founders.len());
        for founder in &self.founders {
            encoder.bytes(founder.public_key.as_bytes());
            encoder.bytes(founder.name.as_str().as_bytes());
            encoder.number(founder.addresses.len());
            for address in &founder.addresses {
                encoder.bytes(address.to_string().as_bytes());
            }
            encoder.bytes(&founder.epoch.to_be_bytes());
        }
        encoder.bytes(&self.nonce);
        encoder.bytes(&self.config_digest);
        encoder.bytes(self.proposer.as_bytes());
        ProposalId(encoder.finish())
    }
}

/// Digest of the settings that all founders must share.
pub fn config_digest<'a>(fields: impl IntoIterator<Item = (&'a String, &'a String)>) -> [u8; 32] {
    let mut encoder = Encoder::new("muster birth fields v1");
    for (path, value) in fields {
        encoder.bytes(path.as_bytes());
        encoder.bytes(value.as_bytes());
    }
    encoder.finish()
}

struct Encoder(Context);

impl Encoder {
    fn new(label: &str) -> Self {
        let mut encoder = Self(Context::new(&SHA256));
        encoder.bytes(label.as_bytes());
        encoder
    }

    fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}
