//! The proposal that the founders agree on, and its identifier.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_PROPOSAL, MAX_TOKEN_ID};
use muster_types::{ClusterId, NodeId};
use ring::digest::{Context, SHA256};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::draft::{Draft, Founder, ProposalError};

/// SHA-256 of a proposal as its proposer encoded it. Founders sign this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId([u8; 32]);

impl ProposalId {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Id of the proposal with this encoding. Never changes, or signatures would become invalid.
    fn of(bytes: &[u8]) -> Self {
        let mut encoder = Encoder::new("muster birth proposal v1");
        encoder.bytes(bytes);
        Self(encoder.finish())
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

/// A well-formed proposal. Immutable, so that its id always matches its content.
///
/// The id is that of the proposer's bytes, not of the parsed parts. A newer version may add fields;
/// this one keeps, stores and passes on the bytes, so that the id and all signatures stay valid.
/// Equal parts in another encoding are another proposal.
#[derive(Debug, Clone)]
pub struct Proposal {
    draft: Draft,
    /// The encoded `muster.hello.v1.Proposal`.
    bytes: Vec<u8>,
    id: ProposalId,
    /// The ids of `draft.founders`, in the same order.
    ids: Vec<NodeId>,
}

impl Proposal {
    /// # Errors
    /// Unless the draft names 1 to [`MAX_FOUNDERS`] founders, sorted by id, with distinct names and
    /// the proposer among them.
    pub fn new(draft: Draft) -> Result<Self, ProposalError> {
        let ids = check(&draft)?;
        let bytes = draft.encode();
        Ok(Self { id: ProposalId::of(&bytes), draft, bytes, ids })
    }

    /// Reads a proposal that its proposer encoded. Fields that this version does not know stay in
    /// its bytes.
    ///
    /// # Errors
    /// When it is longer than [`MAX_PROPOSAL`], malformed, or invalid as in [`Proposal::new`].
    pub fn decode(bytes: Vec<u8>) -> Result<Self, ProposalError> {
        if bytes.len() > MAX_PROPOSAL {
            return Err(ProposalError::TooLong(bytes.len()));
        }
        let draft = Draft::decode(&bytes)?;
        let ids = check(&draft)?;
        Ok(Self { id: ProposalId::of(&bytes), draft, bytes, ids })
    }

    /// The proposal as its proposer encoded it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(ProposalVisitor)
    }
}

struct ProposalVisitor;

impl Visitor<'_> for ProposalVisitor {
    type Value = Proposal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an encoded proposal of at most {MAX_PROPOSAL} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Proposal, E> {
        Proposal::decode(bytes.to_vec()).map_err(E::custom)
    }
}

/// Checks the parts of a proposal and returns the ids of its founders.
fn check(draft: &Draft) -> Result<Vec<NodeId>, ProposalError> {
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
    Ok(ids)
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

/// Hash of a label and of byte strings, each preceded by its length in eight bytes, big-endian.
struct Encoder(Context);

impl Encoder {
    fn new(label: &str) -> Self {
        let mut encoder = Self(Context::new(&SHA256));
        encoder.bytes(label.as_bytes());
        encoder
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::birth::testing::{draft, founders, largest_draft, proposal};

    #[test]
    fn the_largest_proposal_leaves_half_of_the_limit_to_newer_versions() {
        let largest = Proposal::new(largest_draft()).unwrap();
        assert!(largest.bytes().len() <= MAX_PROPOSAL / 2, "{} bytes", largest.bytes().len());
        let mut bytes = largest.bytes;
        bytes.resize(MAX_PROPOSAL + 1, 0);
        assert_eq!(Proposal::decode(bytes).unwrap_err(), ProposalError::TooLong(MAX_PROPOSAL + 1));
    }

    #[test]
    fn the_id_is_that_of_the_bytes_and_survives_another_pass() {
        let proposal = proposal(&founders(3));
        let read = Proposal::decode(proposal.bytes().to_vec()).unwrap();
        assert_eq!((read.id(), &read.draft), (proposal.id(), &proposal.draft));
    }

    #[test]
    fn founders_out_of_order_or_twice_are_refused() {
        let mut draft = draft(&founders(3));
        draft.founders.swap(0, 1);
        assert_eq!(Proposal::decode(draft.encode()).unwrap_err(), ProposalError::Order);
        draft.founders[1] = draft.founders[0].clone();
        assert_eq!(Proposal::decode(draft.encode()).unwrap_err(), ProposalError::Order);
    }
}
