//! Members of the directory, each with a small number that stands for its node id within one
//! process.
//!
//! The slot keeps a view of 10,000 members small and never leaves the process. A slot is never
//! reused, so a timer about a removed member cannot hit another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_types::NodeId;

/// First 128 bits of a node id; stands for a third node in a datagram. Finding another key with the
/// same prefix is as hard as breaking a 128-bit cipher.
pub(crate) type ShortId = [u8; 16];

/// Index of a member in this process.
pub(crate) type Slot = u32;

/// The directory as gossip uses it. Cheap to share between the engines of a simulation.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    slots: HashMap<ShortId, (Slot, NodeId)>,
    nodes: Vec<Option<NodeId>>,
}

impl Roster {
    /// Returns a roster of exactly these members, which keep their slots from `self`.
    #[must_use]
    pub fn with_members(&self, members: &BTreeSet<NodeId>) -> Self {
        let mut next = self.clone();
        next.slots.retain(|_, (_, id)| members.contains(id));
        for node in &mut next.nodes {
            *node = node.filter(|id| members.contains(id));
        }
        for id in members {
            let slot = Slot::try_from(next.nodes.len()).unwrap_or(Slot::MAX);
            // If two ids ever share their first half, the first keeps it and the other stays
            // unknown to gossip. That is wrong about one member's health, never about trust.
            next.slots.entry(short_id(id)).or_insert_with(|| {
                next.nodes.push(Some(*id));
                (slot, *id)
            });
        }
        next
    }

    /// Returns true when exactly these are the members.
    pub(crate) fn matches<T>(&self, members: &BTreeMap<NodeId, T>) -> bool {
        self.len() == members.len() && members.keys().all(|id| self.slot(id).is_some())
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn slot(&self, id: &NodeId) -> Option<Slot> {
        self.slots.get(&short_id(id)).filter(|(_, known)| known == id).map(|(slot, _)| *slot)
    }

    pub(crate) fn slot_of_short(&self, short: &ShortId) -> Option<Slot> {
        self.slots.get(short).map(|(slot, _)| *slot)
    }

    pub(crate) fn node(&self, slot: Slot) -> Option<NodeId> {
        self.nodes.get(slot as usize).copied().flatten()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, NodeId)> {
        self.slots.values().copied()
    }
}

pub(crate) fn short_id(id: &NodeId) -> ShortId {
    let mut short = ShortId::default();
    short.copy_from_slice(&id.as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(|n| NodeId::from_bytes([n; 32])).collect()
    }

    #[test]
    fn a_slot_is_kept_while_a_member_stays_and_never_given_to_another() {
        let first = Roster::default().with_members(&ids([1, 2, 3]));
        let two = NodeId::from_bytes([2; 32]);
        let slot = first.slot(&two).unwrap();
        let second = first.with_members(&ids([1, 3, 4]));
        assert_eq!(second.len(), 3);
        assert_eq!(second.slot(&two), None);
        assert_eq!(second.node(slot), None);
        let third = second.with_members(&ids([1, 2, 3, 4, 5]));
        assert_ne!(third.slot(&two), Some(slot));
        for (slot, id) in third.iter() {
            assert_eq!(third.node(slot), Some(id));
            assert_eq!(third.slot_of_short(&short_id(&id)), Some(slot));
        }
        for n in [1, 3] {
            let id = NodeId::from_bytes([n; 32]);
            assert_eq!(first.slot(&id), third.slot(&id));
        }
    }

    #[test]
    fn half_an_id_is_not_an_id() {
        let roster = Roster::default().with_members(&ids([1]));
        let mut twin = [1; 32];
        twin[31] = 2;
        assert_eq!(roster.slot(&NodeId::from_bytes(twin)), None);
    }
}
