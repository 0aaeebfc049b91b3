//! Reconnects to members of the roster that are not seen, a few at a time in round-robin order. The
//! search is fast after a start, after a change and while it finds members; otherwise it slows
//! down.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Core;
use crate::identity::Identity;
use crate::outbox::Task;
use crate::roster::{Roster, Slot};
use crate::settings::Settings;

#[derive(Debug)]
pub(super) struct Seeking {
    missing: BTreeSet<Slot>,
    /// Last slot asked. Starts at random, so that not all members ask the same one first.
    cursor: Slot,
    pause: Duration,
    /// True if a member was found since the last round.
    fruitful: bool,
    armed: bool,
}

impl Seeking {
    pub(super) fn new(roster: &Roster, me: Slot, settings: &Settings, rng: &mut StdRng) -> Self {
        let missing: BTreeSet<_> =
            roster.iter().map(|(slot, _)| slot).filter(|slot| *slot != me).collect();
        let last = missing.last().copied().unwrap_or_default();
        let cursor = rng.random_range(0..=last);
        Self { missing, cursor, pause: settings.seek_first, fruitful: false, armed: false }
    }

    pub(super) fn found(&mut self, slot: Slot) {
        self.fruitful |= self.missing.remove(&slot);
    }

    pub(super) fn lost(&mut self, slot: Slot) {
        self.missing.insert(slot);
    }

    pub(super) fn hurry(&mut self, settings: &Settings) {
        self.pause = settings.seek_first;
    }

    fn next(&mut self) -> Option<Slot> {
        let after = self.missing.range(self.cursor.saturating_add(1)..).next();
        let next = after.or_else(|| self.missing.first()).copied()?;
        self.cursor = next;
        Some(next)
    }
}

impl Core {
    /// Asks the next missing members for an answer and for the members that they see. Replaces a
    /// round that is already scheduled: two scheduled rounds would both repeat indefinitely.
    pub(super) fn seek(&mut self, now: Instant) {
        self.agenda.remove_seek();
        self.seeking.armed = false;
        for _ in 0..self.settings.seek_fanout.min(self.seeking.missing.len()) {
            let Some(slot) = self.seeking.next() else { break };
            let whom = self.known(slot).unwrap_or(Identity { slot, generation: 0 });
            self.drive(now, |foca, out| foca.announce(whom, out));
        }
        self.arm_seek(now);
    }

    pub(super) fn arm_seek(&mut self, now: Instant) {
        if self.seeking.missing.is_empty() {
            self.seeking.pause = self.settings.seek_first;
        } else if !self.seeking.armed {
            self.seeking.armed = true;
            if std::mem::take(&mut self.seeking.fruitful) {
                self.seeking.hurry(&self.settings);
            }
            self.agenda.add(now + self.seeking.pause, Task::Seek);
            let slower = self.seeking.pause.saturating_mul(2);
            self.seeking.pause = slower.min(self.settings.seek_last);
        }
    }
}
