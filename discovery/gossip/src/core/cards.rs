//! Metadata that members publish about themselves, learned only from the member itself. It is sent
//! to all when it changes, and requested when a datagram names a newer version than is known.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Core;
use crate::identity::Generation;
use crate::outbox::Task;
use crate::roster::Slot;
use crate::wire::{self, Card, Note, Preamble};

/// Minimum time between two requests for the same metadata.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Known {
    version: (Generation, u32),
    card: Option<Card>,
    asked: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Cards {
    own: Option<Card>,
    number: u32,
    known: HashMap<Slot, Known>,
    to_send: VecDeque<Slot>,
    sending: bool,
}

impl Cards {
    /// Returns the version of this node's metadata; 0 while it has none.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn of(&self, slot: Slot, me: Slot) -> Option<Card> {
        if slot == me {
            return self.own.clone();
        }
        self.known.get(&slot).and_then(|known| known.card.clone())
    }

    /// Stores the metadata. Returns true if it is new.
    pub(super) fn keep(&mut self, slot: Slot, preamble: &Preamble, card: Card) -> bool {
        let known = self.known.entry(slot).or_default();
        let version = (preamble.generation, preamble.card);
        let newer = version > known.version;
        if newer {
            *known = Known { version, card: Some(card), asked: None };
        }
        newer
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.known.remove(&slot);
        self.to_send.retain(|to| *to != slot);
    }
}

impl Core {
    /// Replaces this node's metadata.
    pub fn set_card(&mut self, now: Instant, card: &Card) {
        let card = wire::bounded(card);
        let old = self.cards.own.as_ref();
        if old == Some(&card) {
            return;
        }
        let moved = old.is_none_or(|old| old.addresses != card.addresses);
        self.cards.own = Some(card);
        self.cards.number = self.cards.number.saturating_add(1);
        self.changed = true;
        // A new address must reach every member: they may have no other way to us. In a large group
        // the rest is requested by the members that next hear from us.
        if moved || self.roster.len() <= self.settings.card_push_below {
            self.cards.to_send = self.foca.iter_members().map(|m| m.id().slot).collect();
            self.arm_cards(now);
        }
    }

    fn arm_cards(&mut self, now: Instant) {
        if !self.cards.sending && !self.cards.to_send.is_empty() {
            self.cards.sending = true;
            self.agenda.add(now + self.settings.card_period, Task::Cards);
        }
    }

    pub(super) fn send_cards(&mut self, now: Instant) {
        self.cards.sending = false;
        for _ in 0..self.settings.card_fanout {
            let Some(slot) = self.cards.to_send.pop_front() else { break };
            self.send_card(slot);
        }
        self.arm_cards(now);
    }

    pub(super) fn send_card(&mut self, slot: Slot) {
        if let Some(card) = self.cards.own.clone() {
            self.send_note(slot, &Note::Card(card));
        }
    }

    /// Requests the sender's metadata if the datagram names a newer version.
    pub(super) fn want_card(&mut self, now: Instant, slot: Slot, preamble: &Preamble) {
        let known = self.cards.known.entry(slot).or_default();
        let newer = preamble.card > 0 && (preamble.generation, preamble.card) > known.version;
        let asked = known.asked.is_some_and(|at| now.saturating_duration_since(at) < ASK_AGAIN);
        if newer && !asked {
            known.asked = Some(now);
            self.send_note(slot, &Note::Ask);
        }
    }
}
