//! What a node says of itself before there is a cluster, to and from the wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_messages::hello::{self, candidate::State};
use muster_types::{ClusterId, NodeId, NodeName, PublicKey, Role};

use crate::birth::Founder;

/// The most addresses that are told of one candidate.
pub(super) const MAX_ADDRESSES: usize = 16;
const MAX_FIELDS: usize = 32;
const MAX_FIELD: usize = 1024;

/// The most hints taken from one greeting.
pub(super) const MAX_HINTS: usize = 64;

/// How a candidate says it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Fresh,
    Bound,
    Member(ClusterId),
}

/// What a peer says of itself, checked for form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    pub addresses: Vec<SocketAddr>,
    pub turn: u64,
    pub standing: Standing,
    pub birth_fields: BTreeMap<String, String>,
}

impl Candidate {
    pub fn id(&self) -> NodeId {
        muster_pki::identity::node_id(&self.public_key)
    }

    pub(super) fn founder(&self) -> Founder {
        Founder {
            public_key: self.public_key,
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            turn: self.turn,
        }
    }
}

/// Why a peer's word about itself makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer's introduction is refused: {0}")]
pub struct CandidateError(&'static str);

impl Candidate {
    /// What the holder of `public_key` says of itself.
    ///
    /// # Errors
    /// When a part is missing, malformed or beyond the bounds that the contract states.
    pub fn from_wire(
        public_key: PublicKey,
        wire: Option<hello::Candidate>,
    ) -> Result<Self, CandidateError> {
        let wire = wire.ok_or(CandidateError("it does not say who it is"))?;
        let fits = |(path, value): (&String, &String)| {
            path.len() <= MAX_FIELD && value.len() <= MAX_FIELD && !has_control(path, value)
        };
        if wire.addresses.len() > MAX_ADDRESSES {
            return Err(CandidateError("it names more than 16 addresses"));
        }
        if wire.birth_fields.len() > MAX_FIELDS || !wire.birth_fields.iter().all(fits) {
            return Err(CandidateError("its birth fields are too many or too long"));
        }
        let standing = match wire.state() {
            State::Fresh => Standing::Fresh,
            State::Bound => Standing::Bound,
            // A member that cannot name its cluster yet is not to be joined, nor founded beside.
            State::Member => ClusterId::try_from(wire.cluster_id.as_slice())
                .map_or(Standing::Bound, Standing::Member),
            State::Unspecified => return Err(CandidateError("it does not say how it stands")),
        };
        let addresses: Result<_, _> =
            wire.addresses.iter().map(|text| text.parse::<SocketAddr>()).collect();
        Ok(Self {
            public_key,
            name: wire.name.parse().map_err(|_| CandidateError("its name is not a node name"))?,
            role: wire.role.parse().map_err(|_| CandidateError("its role is unknown"))?,
            addresses: addresses.map_err(|_| CandidateError("an address is not ip:port"))?,
            turn: wire.turn,
            standing,
            birth_fields: wire.birth_fields.into_iter().collect(),
        })
    }

    pub fn to_wire(&self, waiting_for: String) -> hello::Candidate {
        let (state, cluster_id) = match &self.standing {
            Standing::Fresh => (State::Fresh, Vec::new()),
            Standing::Bound => (State::Bound, Vec::new()),
            Standing::Member(cluster) => (State::Member, cluster.to_vec()),
        };
        hello::Candidate {
            name: self.name.to_string(),
            role: self.role.to_string(),
            addresses: self.addresses.iter().take(MAX_ADDRESSES).map(ToString::to_string).collect(),
            version: muster_types::VERSION.to_owned(),
            birth_fields: self.birth_fields.clone().into_iter().collect(),
            state: state.into(),
            cluster_id,
            waiting_for,
            turn: self.turn,
        }
    }
}

fn has_control(path: &str, value: &str) -> bool {
    path.chars().chain(value.chars()).any(char::is_control)
}

/// The addresses that a peer names for others.
pub(super) fn hinted(hints: &[hello::Hint]) -> Vec<SocketAddr> {
    let addresses =
        |hint: &hello::Hint| hint.addresses.iter().take(MAX_ADDRESSES).cloned().collect();
    let texts = hints.iter().take(MAX_HINTS).flat_map::<Vec<String>, _>(addresses);
    texts.filter_map(|text| text.parse().ok()).collect()
}
