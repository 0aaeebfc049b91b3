//! A node's description of itself before it belongs to a cluster, and its encoding.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_messages::hello::{self, NodeRole, candidate::State};
use muster_types::limits::{
    MAX_ADDRESSES, MAX_BIRTH_FIELDS, MAX_FIELD_NAME, MAX_FIELD_VALUE, MAX_HINTS,
};
use muster_types::{ClusterId, NodeId, NodeName, PublicKey, Role};

use crate::birth::Founder;

/// State that a candidate reports of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateState {
    /// Committed to no proposal and no cluster.
    Fresh,
    /// Committed to a proposal, or to a cluster that has yet to admit it again.
    Bound,
    Member(ClusterId),
}

/// A peer's description of itself; only the syntax is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    pub addresses: Vec<SocketAddr>,
    pub epoch: u64,
    pub state: CandidateState,
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
            epoch: self.epoch,
        }
    }
}

/// Reason why a peer's description of itself is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid candidate: {0}")]
pub struct CandidateError(&'static str);

impl Candidate {
    /// Decodes the description that the holder of `public_key` sent.
    ///
    /// # Errors
    /// When a part is missing, malformed or beyond the bounds stated in the .proto file.
    pub fn from_wire(
        public_key: PublicKey,
        wire: Option<hello::Candidate>,
    ) -> Result<Self, CandidateError> {
        let wire = wire.ok_or(CandidateError("the candidate is missing"))?;
        let fits = |(path, value): (&String, &String)| {
            path.len() <= MAX_FIELD_NAME
                && value.len() <= MAX_FIELD_VALUE
                && !has_control(path, value)
        };
        if wire.birth_fields.len() > MAX_BIRTH_FIELDS || !wire.birth_fields.iter().all(fits) {
            return Err(CandidateError("birth fields are too many or too long"));
        }
        if wire.addresses.len() > MAX_ADDRESSES {
            return Err(CandidateError("more than 16 addresses"));
        }
        let state = match State::try_from(wire.state) {
            Ok(State::Fresh) => CandidateState::Fresh,
            // An unknown state is one of a later version. It must not count as absent, or a cluster
            // could be founded next to the one that the candidate belongs to.
            Ok(State::Bound) | Err(_) => CandidateState::Bound,
            // A member that cannot name its cluster yet: neither join it nor found a
            // cluster next to it.
            Ok(State::Member) => ClusterId::try_from(wire.cluster_id.as_slice())
                .map_or(CandidateState::Bound, CandidateState::Member),
            Ok(State::Unspecified) => return Err(CandidateError("the state is missing")),
        };
        let addresses: Result<_, _> =
            wire.addresses.iter().map(|text| text.parse::<SocketAddr>()).collect();
        Ok(Self {
            public_key,
            name: wire.name.parse().map_err(|_| CandidateError("the name is not a node name"))?,
            role: match NodeRole::try_from(wire.role) {
                // A role of a later version: certainly no founder here.
                Err(_) => Role::Worker,
                Ok(role) => {
                    NodeRole::role_of(role.into()).ok_or(CandidateError("the role is missing"))?
                }
            },
            addresses: addresses.map_err(|_| CandidateError("an address is not ip:port"))?,
            epoch: wire.epoch,
            state,
            birth_fields: wire.birth_fields.into_iter().collect(),
        })
    }

    pub fn to_wire(&self, waiting_for: String) -> hello::Candidate {
        let (state, cluster_id) = match &self.state {
            CandidateState::Fresh => (State::Fresh, Vec::new()),
            CandidateState::Bound => (State::Bound, Vec::new()),
            CandidateState::Member(cluster) => (State::Member, cluster.to_vec()),
        };
        hello::Candidate {
            name: self.name.to_string(),
            role: NodeRole::from(self.role).into(),
            addresses: self.addresses.iter().take(MAX_ADDRESSES).map(ToString::to_string).collect(),
            version: muster_types::VERSION.to_owned(),
            birth_fields: self.birth_fields.clone().into_iter().collect(),
            state: state.into(),
            cluster_id,
            waiting_for,
            epoch: self.epoch,
        }
    }
}

fn has_control(path: &str, value: &str) -> bool {
    path.chars().chain(value.chars()).any(char::is_control)
}

/// Addresses in a peer's hints about other nodes.
pub(super) fn hint_addresses(hints: &[hello::Hint]) -> Vec<SocketAddr> {
    let addresses =
        |hint: &hello::Hint| hint.addresses.iter().take(MAX_ADDRESSES).cloned().collect();
    let texts = hints.iter().take(MAX_HINTS).flat_map::<Vec<String>, _>(addresses);
    texts.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(state: i32, role: i32) -> hello::Candidate {
        hello::Candidate { name: "cp-1".to_owned(), state, role, ..hello::Candidate::default() }
    }

    /// Such a candidate was taken for an address that does not answer, and did not delay a birth for
    /// long.
    #[test]
    fn a_candidate_of_a_later_version_is_present() {
        let key = PublicKey::from_bytes([1; 32]);
        let read = |state, role| Candidate::from_wire(key, Some(wire(state, role)));
        let (fresh, voter) = (State::Fresh.into(), NodeRole::ControlPlane.into());
        assert_eq!(read(fresh, voter).unwrap().state, CandidateState::Fresh);
        assert_eq!(read(99, voter).unwrap().state, CandidateState::Bound);
        assert_eq!(read(fresh, 99).unwrap().role, Role::Worker);
        for (state, role) in [(0, voter), (fresh, 0)] {
            read(state, role).unwrap_err();
        }
    }
}
