//! The registry: members, and removed nodes that may never return.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use muster_types::{ConfigVersion, LogIndex, NodeId, NodeName, PublicKey, Role, UnixMillis};
use serde::{Deserialize, Serialize};

use super::etcd::report::EtcdReport;
use super::{ApplyContext, ClusterState, Refusal, RefusalKind, limits};
use muster_pki::token::TokenId;

/// A node admitted to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: NodeId,
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    /// At least one, preferred first.
    pub addresses: Vec<SocketAddr>,
    /// The Muster version of its last report; empty until a founder has reported.
    #[serde(default)]
    pub version: String,
    /// The configuration version that it runs.
    #[serde(default)]
    pub config_version: ConfigVersion,
    /// The token that the node proved.
    pub token: TokenId,
    /// The member that checked the proof; `None` for a founder.
    #[serde(default)]
    pub verified_by: Option<NodeId>,
    /// Log index of its admission.
    pub admitted_index: LogIndex,
    #[serde(rename = "admitted_ms")]
    pub admitted_at: UnixMillis,
    /// Its last report about its etcd; `None` on a worker, and before the first report.
    #[serde(default)]
    pub etcd: Option<EtcdReport>,
}

impl Member {
    pub fn is_control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }
}

/// A removed node. Its identity is refused permanently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub name: NodeName,
    /// Log index of its removal.
    pub removed_index: LogIndex,
    #[serde(rename = "removed_ms")]
    pub removed_at: UnixMillis,
}

/// Members and tombstones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Registry {
    members: BTreeMap<NodeId, Arc<Member>>,
    removed: BTreeMap<NodeId, Arc<Tombstone>>,
}

impl Registry {
    pub(super) fn get(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id).map(Arc::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Member> {
        self.members.get_mut(id).map(Arc::make_mut)
    }

    pub(super) fn by_name(&self, name: &NodeName) -> Option<&Member> {
        self.members.values().map(Arc::as_ref).find(|m| m.name == *name)
    }

    pub(super) fn tombstone(&self, id: &NodeId) -> Option<&Tombstone> {
        self.removed.get(id).map(Arc::as_ref)
    }

    pub(super) fn has_capacity(&self) -> bool {
        self.members.len() < limits::MAX_MEMBERS
            && self.members.len() + self.removed.len() < limits::MAX_IDENTITIES
    }

    pub(super) fn insert(&mut self, member: Member) {
        self.members.insert(member.id, Arc::new(member));
    }

    pub(super) fn remove(&mut self, id: &NodeId, at: ApplyContext) {
        if let Some(member) = self.members.remove(id) {
            let name = member.name.clone();
            let tombstone = Tombstone { name, removed_index: at.index, removed_at: at.now };
            self.removed.insert(*id, Arc::new(tombstone));
        }
    }
}

impl ClusterState {
    /// Every member, by node id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.members.values().map(Arc::as_ref)
    }

    /// The member with this id.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id)
    }

    /// The member with this name.
    pub fn member_by_name(&self, name: &NodeName) -> Option<&Member> {
        self.members.by_name(name)
    }

    /// The name of a member, or the short id of another node.
    pub fn name_or_id(&self, node: &NodeId) -> String {
        self.member(node).map_or_else(|| node.short(), |member| member.name.to_string())
    }

    /// Every removed node.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Tombstone)> {
        self.members.removed.iter().map(|(id, tombstone)| (id, tombstone.as_ref()))
    }

    /// Returns whether this identity was removed.
    pub fn is_removed(&self, id: &NodeId) -> bool {
        self.members.removed.contains_key(id)
    }

    /// The control-plane nodes: the desired voters of the Raft group.
    pub fn control_plane_ids(&self) -> BTreeSet<NodeId> {
        self.members().filter(|m| m.is_control_plane()).map(|m| m.id).collect()
    }

    /// Returns the member with this name or node id; otherwise a refusal that suggests the nearest
    /// name.
    pub fn find(&self, text: &str) -> Result<&Member, Refusal> {
        let by_name = text.parse().ok().and_then(|name| self.members.by_name(&name));
        let by_id = || text.parse().ok().and_then(|id| self.members.get(&id));
        by_name.or_else(by_id).ok_or_else(|| self.unknown(text))
    }

    fn unknown(&self, text: &str) -> Refusal {
        let shown: String = text.chars().take(64).collect();
        let nearest = self
            .members()
            .map(|m| (strsim::damerau_levenshtein(&shown, m.name.as_str()), &m.name))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let advice = match nearest {
            Some((_, name)) => format!("did you mean {name}?"),
            None => "see `musterctl members`".to_owned(),
        };
        Refusal::new(
            RefusalKind::NotAMember,
            format!("no member has the name or node id {shown:?}; {advice}"),
        )
    }
}

/// Refuses addresses that cannot be dialled.
pub(super) fn check_addresses(addresses: &[SocketAddr]) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::new(RefusalKind::Invalid, why));
    if addresses.is_empty() || addresses.len() > limits::MAX_ADDRESSES {
        return invalid(format!(
            "a node has 1 to {} addresses, not {}; check machine.network in its configuration",
            limits::MAX_ADDRESSES,
            addresses.len()
        ));
    }
    for address in addresses {
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            return invalid(format!(
                "{address} is not an address that others can dial; check machine.network in the \
                 node's configuration"
            ));
        }
    }
    Ok(())
}

/// Refuses a version text that is too long or not plain ASCII.
pub(super) fn check_version(version: &str) -> Result<(), Refusal> {
    if version.len() <= limits::MAX_VERSION && version.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalKind::Invalid,
        format!("a version is at most {} printable ASCII characters", limits::MAX_VERSION),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn members_are_limited() {
        let replica = crate::fixtures::Replica::founded(1);
        let template = replica.state.members().next().unwrap();
        let mut registry = Registry::default();
        for number in 1..limits::MAX_MEMBERS {
            registry.insert(Member { id: numbered(number), ..template.clone() });
        }
        assert!(registry.has_capacity());
        registry.insert(Member { id: numbered(0), ..template.clone() });
        assert!(!registry.has_capacity());
    }

    #[test]
    fn identities_are_limited() {
        let name: NodeName = "gone".parse().unwrap();
        let tombstone = Arc::new(Tombstone {
            name,
            removed_index: LogIndex(1),
            removed_at: UnixMillis::from_millis(1),
        });
        let mut registry = Registry::default();
        for number in 1..limits::MAX_IDENTITIES {
            registry.removed.insert(numbered(number), Arc::clone(&tombstone));
        }
        assert!(registry.has_capacity());
        registry.removed.insert(numbered(0), tombstone);
        assert!(!registry.has_capacity());
    }
}
