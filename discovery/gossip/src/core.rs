//! The SWIM engine without I/O: foca, the directory's rule over it, and time as an argument.
//!
//! foca (SWIM with suspicion) decides which members are alive. The engine decides which members
//! exist: it reads every datagram through the roster, so foca never sees any other node. It also
//! searches for every member of the roster that is not seen. No member stays missing after a
//! partition, a loss or a late start. Three parts of Lifeguard (Dadgar et al., 2018) prevent false
//! alarms:
//! * A member notifies its suspect directly.
//! * A member whose suspicions prove wrong, or that was not running, lowers its local health and
//!   waits longer.
//! * Time in which this process did not run is not counted.

mod cards;
mod contacts;
mod doubt;
mod seek;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{Foca, Member, NoCustomBroadcast, Timer};
use muster_types::NodeId;
use rand::rngs::StdRng;

use super::identity::{Generation, Identity, Local, can_be_spared, probe_of};
use super::outbox::{Agenda, News, Outbox, Task};
use super::roster::{Roster, Short, Slot};
use super::settings::Settings;
use super::wire::{self, Body, Note, Preamble, WireError};
use super::{Liveness, State};

/// A timer this late means that the process was not running.
const STALL: Duration = Duration::from_millis(750);

/// Factor on the suspicion timeout of a member that has never sent to this one. A session must be
/// set up first, perhaps with forty at once, and other members know better whether it is alive.
const FIRST_CONTACT: u32 = 2;

/// Actions for the caller, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Send {
        to: NodeId,
        datagram: Bytes,
        /// True if it may be dropped when it needs a new session while several are being set up.
        can_be_spared: bool,
    },
    /// A member is now seen.
    Up(NodeId),
    /// A member is no longer seen.
    Down(NodeId),
}

/// Parameters of a member that starts to gossip.
#[derive(Debug)]
pub struct Start {
    pub me: NodeId,
    /// Higher than at any earlier start of this node, such as its start time in seconds. If a wrong
    /// clock makes it lower, the other members correct it from memory.
    pub generation: Generation,
    pub settings: Settings,
    pub roster: Arc<Roster>,
    pub rng: StdRng,
}

/// foca with our identity and codec, and no broadcasts except membership.
type Swim = Foca<Identity, Local, StdRng, NoCustomBroadcast>;

/// One member's view of the others.
pub struct Core {
    foca: Swim,
    /// foca's own incarnation, read from its packets.
    incarnation: u16,
    settings: Settings,
    roster: Arc<Roster>,
    /// Member on whose behalf another asks, while its request is answered; see [`wire::Swim`].
    ghost: Option<Short>,
    agenda: Agenda,
    /// foca's gossip timer and its due time, while there are no updates to pass on. No wake-up is
    /// needed for it.
    resting: Option<(Instant, Timer<Identity>)>,
    effects: Vec<Effect>,
    /// True when the view should be published before its regular time.
    changed: bool,
    contacts: contacts::Contacts,
    seeking: seek::Seeking,
    doubt: doubt::Doubt,
    cards: cards::Cards,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("me", self.foca.identity())
            .field("seen", &self.foca.num_members())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Returns None when the roster does not hold `me`: only members gossip.
    pub fn new(start: Start, now: Instant) -> Option<Self> {
        let Start { me, generation, settings, roster, mut rng } = start;
        let identity = Identity { slot: roster.slot(&me)?, generation };
        let seeking = seek::Seeking::new(&roster, identity.slot, &settings, &mut rng);
        let config = settings.foca(roster.len(), 0);
        let mut core = Self {
            foca: Foca::new(identity, config, rng, Local),
            incarnation: 0,
            settings,
            roster,
            ghost: None,
            agenda: Agenda::default(),
            resting: None,
            effects: Vec::new(),
            changed: true,
            contacts: contacts::Contacts::default(),
            seeking,
            doubt: doubt::Doubt::default(),
            cards: cards::Cards::default(),
        };
        core.seek(now);
        core.tidy(now);
        Some(core)
    }

    /// Assumes that every member of the roster is alive in `generation` and has been met before.
    /// For simulations that begin in the middle: meeting all members takes time that grows with
    /// their square.
    pub(super) fn assume_all_live(&mut self, now: Instant, generation: Generation) {
        let me = self.foca.identity().slot;
        let slots: Vec<_> =
            self.roster.iter().map(|(slot, _)| slot).filter(|slot| *slot != me).collect();
        let live = slots.into_iter().map(|slot| Member::alive(Identity { slot, generation }));
        self.drive(now, |foca, out| foca.apply_many(live, false, out));
    }

    /// Returns this node's current generation: the one it started with, or a later one.
    pub fn generation(&self) -> Generation {
        self.foca.identity().generation
    }

    /// Returns the directory in use.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Returns the number of other members that are seen.
    pub fn seen(&self) -> usize {
        self.foca.num_members()
    }

    /// Returns the time at which [`Core::tick`] is next needed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// Returns and clears the effects of all calls so far.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns true once after a member came, went or changed its metadata. Other changes of the
    /// view (a suspicion, a new generation) may wait for a second.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Runs all due timers.
    pub fn tick(&mut self, now: Instant) {
        let late = self.agenda.next().map(|at| now.saturating_duration_since(at));
        if let Some(lost) = late.filter(|late| *late > STALL) {
            self.agenda.postpone(lost);
            self.raise_doubt(now, 2);
        }
        while let Some(task) = self.agenda.due(now) {
            match task {
                Task::Foca(timer) => {
                    if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                        self.doubt.withdraw(*member_id);
                        // foca 2.0.0 keeps a member that has refuted, yet notifies it that it is
                        // down.
                        if !self.is_suspect(*member_id, *incarnation) {
                            continue;
                        }
                    }
                    self.drive(now, |foca, out| foca.handle_timer(timer, out));
                }
                Task::Seek => self.seek(now),
                Task::Nag => self.nag(now),
                Task::Tidy => self.tidy(now),
                Task::Calm => self.calm(now),
                Task::Cards => self.send_cards(now),
            }
        }
    }

    /// Handles a datagram from the member that the session has authenticated as `from`. One from a
    /// node outside the roster is ignored.
    pub fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        datagram: &[u8],
    ) -> Result<(), WireError> {
        let me = *self.foca.identity();
        let Some(slot) = self.roster.slot(&from).filter(|slot| *slot != me.slot) else {
            return Ok(());
        };
        let Some((preamble, body)) = wire::open(datagram, &self.roster, slot, me)? else {
            return Ok(());
        };
        self.contacts.heard(slot, now);
        match body {
            Body::Swim(swim) => {
                self.outlive(now, swim.own);
                if !swim.seeks {
                    self.correct(slot, &preamble);
                }
                self.ghost = swim.ghost;
                self.drive(now, |foca, out| foca.handle_data(&swim.packet, out));
                self.ghost = None;
            }
            Body::Note(note) => {
                self.outlive(now, preamble.to_generation);
                self.note(now, slot, &preamble, note);
            }
        }
        self.want_card(now, slot, &preamble);
        Ok(())
    }

    /// Replaces the directory and forgets removed members at once. Returns false when this node
    /// itself was removed: then drop the engine.
    #[must_use]
    pub fn set_roster(&mut self, now: Instant, roster: Arc<Roster>) -> bool {
        let me = self.foca.identity().slot;
        if roster.node(me).is_none() {
            return false;
        }
        let old = std::mem::replace(&mut self.roster, roster);
        for (slot, _) in old.iter() {
            if self.roster.node(slot).is_none() {
                self.forget(now, slot);
            }
        }
        for (slot, _) in self.roster.iter().filter(|(slot, _)| old.node(*slot).is_none()) {
            self.seeking.lost(slot);
        }
        self.changed = true;
        self.reconfigure();
        self.seeking.hurry(&self.settings);
        self.seek(now);
        true
    }

    /// Announces to the other members that this node leaves, so that they need not detect it.
    pub fn leave(&mut self, now: Instant) {
        self.drive(now, |foca, out| foca.leave_cluster(out));
    }

    /// Returns every member of the directory as this node sees it, itself included.
    pub fn view(&self, now: Instant) -> BTreeMap<NodeId, Liveness> {
        let mut view: BTreeMap<NodeId, Liveness> =
            self.roster.iter().map(|(slot, id)| (id, self.liveness(slot))).collect();
        let me = *self.foca.identity();
        let states = self.foca.iter_membership_state().map(|m| (*m.id(), m.state().into()));
        for (id, state) in states.chain([(me, State::Alive)]) {
            let node = self.roster.node(id.slot);
            if let Some(liveness) = node.and_then(|node| view.get_mut(&node)) {
                liveness.state = state;
                liveness.generation = id.generation;
                if id == me {
                    liveness.last_heard = Some(now);
                }
            }
        }
        view
    }

    fn liveness(&self, slot: Slot) -> Liveness {
        Liveness {
            state: State::Unknown,
            last_heard: self.contacts.last_heard(slot),
            generation: 0,
            card: self.cards.of(slot, self.foca.identity().slot),
        }
    }

    /// Calls foca and executes its requests.
    fn drive(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut Swim, &mut Outbox) -> Result<(), foca::Error>,
    ) {
        let mut out = Outbox::default();
        let before = self.foca.identity().generation;
        // foca rejects stale packets and those for an earlier generation; its state is consistent
        // either way.
        call(&mut self.foca, &mut out).ok();
        for (after, timer) in out.later {
            if matches!(timer, Timer::PeriodicGossip(_)) {
                self.resting = Some((now + after, timer));
                continue;
            }
            let mut patience = 1;
            if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                self.accuse(now, *member_id, *incarnation);
                if self.contacts.last_heard(member_id.slot).is_none() {
                    patience = FIRST_CONTACT;
                }
            }
            self.agenda.add(now + after * patience, Task::Foca(timer));
        }
        if self.foca.updates_backlog() > 0
            && let Some((due, timer)) = self.resting.take()
        {
            self.agenda.add(due.max(now), Task::Foca(timer));
        }
        // A member that asks others to probe also probes once more itself: the answer may just be
        // lost.
        let again = out.packets.iter().find_map(|(_, packet)| probe_of(packet));
        let again = again.map(|(target, packet)| (target.slot, packet));
        for (slot, packet) in out.packets.into_iter().chain(again) {
            let (slot, packet) = self.contacts.reroute(slot, packet, &self.foca);
            let can_be_spared = can_be_spared(&packet);
            let sealed = wire::seal_swim(&packet, &self.roster, self.ghost, self.cards.number());
            if let (Some(to), Some((datagram, incarnation))) = (self.roster.node(slot), sealed) {
                self.incarnation = incarnation;
                self.effects.push(Effect::Send { to, datagram, can_be_spared });
            }
        }
        for news in out.news {
            self.learn(now, news);
        }
        if self.foca.identity().generation != before {
            self.reborn(now);
        }
    }

    fn learn(&mut self, now: Instant, news: News) {
        let (News::Up(slot) | News::Down(slot)) = news;
        let Some(id) = self.roster.node(slot) else { return };
        self.changed = true;
        match news {
            News::Up(_) => {
                self.effects.push(Effect::Up(id));
                self.seeking.found(slot);
            }
            News::Down(_) => {
                self.effects.push(Effect::Down(id));
                self.seeking.lost(slot);
                self.arm_seek(now);
            }
        }
    }

    /// Takes a generation above `remembered`, when another member remembers a later one than ours.
    fn outlive(&mut self, now: Instant, remembered: Generation) {
        let me = *self.foca.identity();
        if let Some(generation) = remembered.checked_add(1).filter(|_| remembered > me.generation) {
            let next = Identity { slot: me.slot, generation };
            self.drive(now, |foca, out| foca.change_identity(next, out));
        }
    }

    /// After a change of identity foca waits for a packet before it is active: activate it at once.
    fn reborn(&mut self, now: Instant) {
        self.incarnation = 0;
        self.seeking.hurry(&self.settings);
        self.drive(now, |foca, out| foca.apply_many(std::iter::empty(), false, out));
    }

    /// Refutes when the sender believes in an earlier generation of ours.
    fn correct(&mut self, slot: Slot, preamble: &Preamble) {
        if preamble.to_generation < self.generation() {
            self.send_note(slot, &Note::Refute);
        }
    }

    fn note(&mut self, now: Instant, slot: Slot, preamble: &Preamble, note: Note) {
        let sender = Identity { slot, generation: preamble.generation };
        let lives = Member::new(sender, preamble.incarnation, foca::State::Alive);
        self.drive(now, |foca, out| foca.apply_many(std::iter::once(lives), true, out));
        self.correct(slot, preamble);
        match note {
            Note::Accuse { incarnation } => {
                let me = *self.foca.identity();
                if preamble.to_generation == me.generation {
                    if incarnation >= self.incarnation {
                        let accused = Member::new(me, incarnation, foca::State::Suspect);
                        let accused = std::iter::once(accused);
                        self.drive(now, |foca, out| foca.apply_many(accused, true, out));
                    }
                    self.send_note(slot, &Note::Refute);
                }
            }
            Note::Refute => {}
            Note::Ask => self.send_card(slot),
            Note::Card(card) => self.changed |= self.cards.keep(slot, preamble, card),
        }
    }

    fn send_note(&mut self, slot: Slot, note: &Note) {
        let to_generation = self.known(slot).map_or(0, |id| id.generation);
        self.send_note_to(Identity { slot, generation: to_generation }, note);
    }

    fn send_note_to(&mut self, to: Identity, note: &Note) {
        let Some(receiver) = self.roster.node(to.slot) else { return };
        let preamble = Preamble {
            generation: self.generation(),
            incarnation: self.incarnation,
            to_generation: to.generation,
            card: self.cards.number(),
        };
        let datagram = wire::seal(&preamble, note);
        self.effects.push(Effect::Send { to: receiver, datagram, can_be_spared: false });
    }

    /// Returns the member in `slot` as foca last knew it, alive or not.
    fn known(&self, slot: Slot) -> Option<Identity> {
        self.foca.iter_membership_state().map(|m| *m.id()).find(|id| id.slot == slot)
    }

    fn reconfigure(&mut self) {
        let config = self.settings.foca(self.roster.len(), self.doubt.strain());
        // foca rejects only other probe timings, and those never change.
        self.foca.set_config(config).ok();
    }

    fn forget(&mut self, now: Instant, slot: Slot) {
        if let Some(id) = self.known(slot) {
            let down = std::iter::once(Member::down(id));
            self.drive(now, |foca, out| foca.apply_many(down, false, out));
            self.drive(now, |foca, out| foca.handle_timer(Timer::RemoveDown(id), out));
        }
        self.contacts.forget(slot);
        self.seeking.found(slot);
        self.doubt.forget(slot);
        self.cards.forget(slot);
    }
}

#[cfg(test)]
mod tests;
