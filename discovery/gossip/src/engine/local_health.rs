//! Lifeguard: direct notification of suspects, and this member's local health.

use std::time::{Duration, Instant};

use super::Engine;
use crate::identity::MemberIdentity;
use crate::outbox::Task;
use crate::roster::Slot;
use crate::settings::MAX_HEALTH_SCORE;
use crate::wire::Note;

/// Time after which the health score drops by one.
const DECAY_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which suspicions received from others are checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Number of members that ask one suspect per [`RECHECK_INTERVAL`], so that a large
/// group does not flood it.
const MAX_ASKERS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct LocalHealth {
    suspicions: Vec<(MemberIdentity, u16)>,
    /// Suspicions of others at the last check.
    known_suspects: Vec<(MemberIdentity, u16)>,
    rechecks: u32,
    is_renotify_scheduled: bool,
    score: u8,
    is_decay_scheduled: bool,
}

impl LocalHealth {
    /// Returns the local health score: 0 is healthy; see [`crate::Settings::suspicion`].
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    pub(super) fn clear_suspicion(&mut self, id: MemberIdentity) {
        self.suspicions.retain(|(suspected, _)| *suspected != id);
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.suspicions.retain(|(suspected, _)| suspected.slot != slot);
    }
}

impl Engine {
    /// Notifies a suspect, which foca declares down unless it refutes in time.
    pub(super) fn notify_suspect(&mut self, now: Instant, id: MemberIdentity, incarnation: u16) {
        self.health.clear_suspicion(id);
        self.health.suspicions.push((id, incarnation));
        self.send_note_to(id, &Note::Suspect { incarnation });
        if !self.health.is_renotify_scheduled {
            self.health.is_renotify_scheduled = true;
            self.timers.add(now + self.settings.renotify_interval, Task::Renotify);
        }
    }

    /// Returns true while the member is suspect and has neither refuted nor been declared down.
    pub(super) fn is_suspect(&self, id: MemberIdentity, incarnation: u16) -> bool {
        self.foca.iter_members().any(|member| {
            *member.id() == id
                && member.incarnation() == incarnation
                && member.state() == foca::State::Suspect
        })
    }

    /// Repeats the notification to suspects that have not answered. A refuted suspicion was false:
    /// it lowers the health of this member or its network.
    pub(super) fn renotify(&mut self, now: Instant) {
        self.health.is_renotify_scheduled = false;
        let mut suspicions = std::mem::take(&mut self.health.suspicions);
        let before = suspicions.len();
        suspicions.retain(|(id, incarnation)| self.is_suspect(*id, *incarnation));
        let refuted = before - suspicions.len();
        for (id, incarnation) in &suspicions {
            self.send_note_to(*id, &Note::Suspect { incarnation: *incarnation });
        }
        if !suspicions.is_empty() {
            self.health.is_renotify_scheduled = true;
            self.timers.add(now + self.settings.renotify_interval, Task::Renotify);
        }
        self.health.suspicions = suspicions;
        if refuted > 0 {
            self.lower_health(now, 1);
        }
    }

    /// Asks members that others suspected a while ago. They have refuted it or are down, and the
    /// update was lost on its way here.
    pub(super) fn recheck_suspects(&mut self, now: Instant) {
        self.timers.add(now + RECHECK_INTERVAL, Task::RecheckSuspects);
        let suspects: Vec<_> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(|member| (*member.id(), member.incarnation()))
            .filter(|suspect| !self.health.suspicions.contains(suspect))
            .collect();
        self.health.rechecks = self.health.rechecks.wrapping_add(1);
        let turns =
            u32::try_from(self.roster.len().div_ceil(MAX_ASKERS)).unwrap_or(u32::MAX).max(1);
        let me = self.foca.identity().slot;
        for (id, incarnation) in &suspects {
            let turn = me.wrapping_add(id.slot).wrapping_add(self.health.rechecks);
            if self.health.known_suspects.contains(&(*id, *incarnation))
                && turn.is_multiple_of(turns)
            {
                self.send_note_to(*id, &Note::Suspect { incarnation: *incarnation });
            }
        }
        self.health.known_suspects = suspects;
    }

    pub(super) fn lower_health(&mut self, now: Instant, steps: u8) {
        self.health.score = (self.health.score + steps).min(MAX_HEALTH_SCORE);
        self.reconfigure();
        if !self.health.is_decay_scheduled {
            self.health.is_decay_scheduled = true;
            self.timers.add(now + DECAY_INTERVAL, Task::DecayHealth);
        }
    }

    pub(super) fn decay_health(&mut self, now: Instant) {
        self.health.is_decay_scheduled = false;
        self.health.score = self.health.score.saturating_sub(1);
        self.reconfigure();
        if self.health.score > 0 {
            self.health.is_decay_scheduled = true;
            self.timers.add(now + DECAY_INTERVAL, Task::DecayHealth);
        }
    }
}
