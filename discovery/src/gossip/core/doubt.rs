//! Doubt: in those who do not answer, who are told so directly; and in oneself.

use std::time::{Duration, Instant};

use super::Core;
use crate::gossip::identity::Identity;
use crate::gossip::outbox::Task;
use crate::gossip::roster::Slot;
use crate::gossip::settings::MAX_STRAIN;
use crate::gossip::wire::Note;

/// One step of strain is forgotten after so long.
const CALM: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Doubt {
    accusations: Vec<(Identity, u16)>,
    nagging: bool,
    strain: u8,
    calming: bool,
}

impl Doubt {
    /// How little this member trusts itself; see [`crate::gossip::settings`].
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
    /// foca will hold `id` dead unless it refutes in time: see that it knows.
    pub(super) fn accuse(&mut self, now: Instant, id: Identity, incarnation: u16) {
        self.doubt.withdraw(id);
        self.doubt.accusations.push((id, incarnation));
        self.send_note_to(id, &Note::Accuse { incarnation });
        if !self.doubt.nagging {
            self.doubt.nagging = true;
            self.agenda.add(now + self.settings.nag, Task::Nag);
        }
    }

    /// Repeats what is still unanswered. An accusation that was refuted was false, and says
    /// something about this member or its network.
    pub(super) fn nag(&mut self, now: Instant) {
        self.doubt.nagging = false;
        let mut accusations = std::mem::take(&mut self.doubt.accusations);
        let before = accusations.len();
        accusations.retain(|(id, incarnation)| {
            self.foca.iter_members().any(|member| {
                member.id() == id
                    && member.incarnation() == *incarnation
                    && member.state() == foca::State::Suspect
            })
        });
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
