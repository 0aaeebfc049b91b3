//! Lifeguard: direct notification of suspects, and this member's local health.

use std::time::{Duration, Instant};

use super::Core;
use crate::identity::Identity;
use crate::outbox::Task;
use crate::roster::Slot;
use crate::settings::MAX_STRAIN;
use crate::wire::Note;

/// Time after which the health score drops by one.
const CALM: Duration = Duration::from_secs(5);

/// Interval at which suspicions received from others are checked again.
const TIDY: Duration = Duration::from_secs(1);
/// Number of members that ask one suspect per [`TIDY`], so that a large
/// group does not flood it.
const ASKERS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Doubt {
    accusations: Vec<(Identity, u16)>,
    /// Suspicions of others at the last check.
    hearsay: Vec<(Identity, u16)>,
    looks: u32,
    nagging: bool,
    strain: u8,
    calming: bool,
}

impl Doubt {
    /// Returns the local health score: 0 is healthy; see [`crate::gossip::Settings::suspicion`].
    pub(super) fn strain(&self) -> u8 {
        self.strain
    }

    pub(super) fn withdraw(&mut self, id: Identity) {
        self.accusations.retain(|(accused, _)| *accused != id);
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.accusations.retain(|(accused, _)| accused.slot != slot);
    }
}

impl Core {
    /// Notifies a suspect, which foca declares down unless it refutes in time.
    pub(super) fn accuse(&mut self, now: Instant, id: Identity, incarnation: u16) {
        self.doubt.withdraw(id);
        self.doubt.accusations.push((id, incarnation));
        self.send_note_to(id, &Note::Accuse { incarnation });
        if !self.doubt.nagging {
            self.doubt.nagging = true;
            self.agenda.add(now + self.settings.nag, Task::Nag);
        }
    }

    /// Returns true while the member is suspect and has neither refuted nor been declared down.
    pub(super) fn is_suspect(&self, id: Identity, incarnation: u16) -> bool {
        self.foca.iter_members().any(|member| {
            *member.id() == id
                && member.incarnation() == incarnation
                && member.state() == foca::State::Suspect
        })
    }

    /// Repeats the notification to suspects that have not answered. A refuted suspicion was false:
    /// it lowers the health of this member or its network.
    pub(super) fn nag(&mut self, now: Instant) {
        self.doubt.nagging = false;
        let mut accusations = std::mem::take(&mut self.doubt.accusations);
        let before = accusations.len();
        accusations.retain(|(id, incarnation)| self.is_suspect(*id, *incarnation));
        let refuted = before - accusations.len();
        for (id, incarnation) in &accusations {
            self.send_note_to(*id, &Note::Accuse { incarnation: *incarnation });
        }
        if !accusations.is_empty() {
            self.doubt.nagging = true;
            self.agenda.add(now + self.settings.nag, Task::Nag);
        }
        self.doubt.accusations = accusations;
        if refuted > 0 {
            self.raise_doubt(now, 1);
        }
    }

    /// Asks members that others suspected a while ago. They have refuted it or are down, and the
    /// update was lost on its way here.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.agenda.add(now + TIDY, Task::Tidy);
        let suspects: Vec<_> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(|member| (*member.id(), member.incarnation()))
            .filter(|suspect| !self.doubt.accusations.contains(suspect))
            .collect();
        self.doubt.looks = self.doubt.looks.wrapping_add(1);
        let turns = u32::try_from(self.roster.len().div_ceil(ASKERS)).unwrap_or(u32::MAX).max(1);
        let me = self.foca.identity().slot;
        for (id, incarnation) in &suspects {
            let turn = me.wrapping_add(id.slot).wrapping_add(self.doubt.looks);
            if self.doubt.hearsay.contains(&(*id, *incarnation)) && turn.is_multiple_of(turns) {
                self.send_note_to(*id, &Note::Accuse { incarnation: *incarnation });
            }
        }
        self.doubt.hearsay = suspects;
    }

    pub(super) fn raise_doubt(&mut self, now: Instant, steps: u8) {
        self.doubt.strain = (self.doubt.strain + steps).min(MAX_STRAIN);
        self.reconfigure();
        if !self.doubt.calming {
            self.doubt.calming = true;
            self.agenda.add(now + CALM, Task::Calm);
        }
    }

    pub(super) fn calm(&mut self, now: Instant) {
        self.doubt.calming = false;
        self.doubt.strain = self.doubt.strain.saturating_sub(1);
        self.reconfigure();
        if self.doubt.strain > 0 {
            self.doubt.calming = true;
            self.agenda.add(now + CALM, Task::Calm);
        }
    }
}
