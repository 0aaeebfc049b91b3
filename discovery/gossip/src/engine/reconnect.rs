//! Reconnects to members of the roster that are not seen, a few at a time in round-robin order. The
//! search is fast after a start, after a change and while it finds members; otherwise it slows
//! down.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Engine;
use crate::identity::MemberIdentity;
use crate::outbox::Task;
use crate::roster::{Roster, Slot};
use crate::settings::Settings;

#[derive(Debug)]
pub(super) struct Reconnect {
    missing: BTreeSet<Slot>,
    /// Last slot asked. Starts at random, so that not all members ask the same one first.
    cursor: Slot,
    pause: Duration,
    /// True if a member was found since the last round.
    found_any: bool,
    is_scheduled: bool,
}

impl Reconnect {
    pub(super) fn new(roster: &Roster, me: Slot, settings: &Settings, rng: &mut StdRng) -> Self {
        let missing: BTreeSet<_> =
            roster.iter().map(|(slot, _)| slot).filter(|slot| *slot != me).collect();
        let last = missing.last().copied().unwrap_or_default();
        let cursor = rng.random_range(0..=last);
        Self {
            missing,
            cursor,
            pause: settings.reconnect_min_interval,
            found_any: false,
            is_scheduled: false,
        }
    }

    pub(super) fn found(&mut self, slot: Slot) {
        self.found_any |= self.missing.remove(&slot);
    }

    pub(super) fn lost(&mut self, slot: Slot) {
        self.missing.insert(slot);
    }

    pub(super) fn reset_backoff(&mut self, settings: &Settings) {
        self.pause = settings.reconnect_min_interval;
    }

    fn next(&mut self) -> Option<Slot> {
        let after = self.missing.range(self.cursor.saturating_add(1)..).next();
        let next = after.or_else(|| self.missing.first()).copied()?;
        self.cursor = next;
        Some(next)
    }
}

impl Engine {
    /// Asks the next missing members for an answer and for the members that they see. Replaces a
    /// round that is already scheduled: two scheduled rounds would both repeat indefinitely.
    pub(super) fn reconnect(&mut self, now: Instant) {
        self.timers.remove_reconnect();
        self.reconnect.is_scheduled = false;
        for _ in 0..self.settings.reconnect_fanout.min(self.reconnect.missing.len()) {
            let Some(slot) = self.reconnect.next() else { break };
            let target = self.known(slot).unwrap_or(MemberIdentity { slot, generation: 0 });
            self.call_foca(now, |foca, out| foca.announce(target, out));
        }
        self.schedule_reconnect(now);
    }

    pub(super) fn schedule_reconnect(&mut self, now: Instant) {
        if self.reconnect.missing.is_empty() {
            self.reconnect.pause = self.settings.reconnect_min_interval;
        } else if !self.reconnect.is_scheduled {
            self.reconnect.is_scheduled = true;
            if std::mem::take(&mut self.reconnect.found_any) {
                self.reconnect.reset_backoff(&self.settings);
            }
            self.timers.add(now + self.reconnect.pause, Task::Reconnect);
            let slower = self.reconnect.pause.saturating_mul(2);
            self.reconnect.pause = slower.min(self.settings.reconnect_max_interval);
        }
    }
}
