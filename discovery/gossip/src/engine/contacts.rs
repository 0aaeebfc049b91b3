//! Members that have sent to this one directly. Updates go to them rather than to members without a
//! session. A group that starts together thus does not set up all its sessions in the same second.
//! Probes and searches make every member a contact in time.

use std::collections::HashMap;
use std::time::Instant;

use super::FocaEngine;
use crate::identity::{MemberIdentity, gossip_to, is_gossip};
use crate::roster::Slot;

#[derive(Debug, Default)]
pub(super) struct Contacts {
    last_heard: HashMap<Slot, Instant>,
    turns: Vec<Slot>,
    turn: usize,
}

impl Contacts {
    pub(super) fn on_datagram(&mut self, slot: Slot, now: Instant) {
        if self.last_heard.insert(slot, now).is_none() {
            self.turns.push(slot);
        }
    }

    pub(super) fn last_heard(&self, slot: Slot) -> Option<Instant> {
        self.last_heard.get(&slot).copied()
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.last_heard.remove(&slot);
        self.turns.retain(|contact| *contact != slot);
    }

    /// Redirects a packet that only carries updates from a member without contact to the next
    /// contact.
    pub(super) fn redirect(
        &mut self,
        to: Slot,
        packet: Vec<u8>,
        foca: &FocaEngine,
    ) -> (Slot, Vec<u8>) {
        if self.turns.is_empty() || self.last_heard.contains_key(&to) || !is_gossip(&packet) {
            return (to, packet);
        }
        self.turn = (self.turn + 1) % self.turns.len();
        let contact = self.turns[self.turn];
        let known: Option<MemberIdentity> =
            foca.iter_members().map(|member| *member.id()).find(|id| id.slot == contact);
        match known {
            Some(id) => (id.slot, gossip_to(packet, id)),
            None => (to, packet),
        }
    }
}
