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

mod contacts;
mod local_health;
mod metadata;
mod reconnect;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foca::{Foca, Member, NoCustomBroadcast, Timer};
use muster_types::NodeId;
use rand::rngs::StdRng;

use super::identity::{Generation, LocalCodec, MemberIdentity, is_optional, probe_of};
use super::outbox::{MemberEvent, Outbox, Task, TimerQueue};
use super::roster::{Roster, ShortId, Slot};
use super::settings::Settings;
use super::wire::{self, Body, Note, Preamble, WireError};
use super::{Liveness, LivenessState};

/// A timer this late means that the process was not running.
const STALL_THRESHOLD: Duration = Duration::from_millis(750);

/// Factor on the suspicion timeout of a member that has never sent to this one. A session must be
/// set up first, perhaps with forty at once, and other members know better whether it is alive.
const FIRST_CONTACT_FACTOR: u32 = 2;

/// Actions for the caller, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Send {
        to: NodeId,
        datagram: Bytes,
        /// True if it may be dropped when it needs a new session while several are being set up.
        is_optional: bool,
    },
    /// A member is alive.
    Up(NodeId),
    /// A member is down.
    Down(NodeId),
}

/// Counters of datagrams that members sent and this node did not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RejectedDatagrams {
    /// Malformed or too long.
    pub malformed: u64,
    /// Unknown kind or SWIM message; ignored.
    pub unknown: u64,
}

impl RejectedDatagrams {
    fn count(&mut self, error: WireError) {
        let counter = if error.is_unknown() { &mut self.unknown } else { &mut self.malformed };
        *counter = counter.saturating_add(1);
    }
}

/// Parameters of a member that starts to gossip.
#[derive(Debug)]
pub struct EngineParams {
    pub me: NodeId,
    /// Higher than at any earlier start of this node, such as its start time in seconds. If a wrong
    /// clock makes it lower, the other members correct it from memory.
    pub generation: Generation,
    pub settings: Settings,
    pub roster: Arc<Roster>,
    pub rng: StdRng,
}

/// foca with our identity and codec, and no broadcasts except membership.
type FocaEngine = Foca<MemberIdentity, LocalCodec, StdRng, NoCustomBroadcast>;

/// One member's view of the others.
pub struct Engine {
    foca: FocaEngine,
    /// foca's own incarnation, read from its packets.
    incarnation: u16,
    settings: Settings,
    roster: Arc<Roster>,
    /// Member on whose behalf another asks, while its request is answered; see [`wire::Swim`].
    unknown_origin: Option<ShortId>,
    timers: TimerQueue,
    /// foca's gossip timer and its due time, while there are no updates to pass on. No wake-up is
    /// needed for it.
    idle_gossip: Option<(Instant, Timer<MemberIdentity>)>,
    effects: Vec<Effect>,
    /// True when the view should be published before its regular time.
    changed: bool,
    contacts: contacts::Contacts,
    reconnect: reconnect::Reconnect,
    health: local_health::LocalHealth,
    metadata: metadata::MetadataStore,
    rejected: RejectedDatagrams,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("me", self.foca.identity())
            .field("seen", &self.foca.num_members())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns None when the roster does not hold `me`: only members gossip.
    pub fn new(start: EngineParams, now: Instant) -> Option<Self> {
        let EngineParams { me, generation, settings, roster, mut rng } = start;
        let identity = MemberIdentity { slot: roster.slot(&me)?, generation };
        let reconnect = reconnect::Reconnect::new(&roster, identity.slot, &settings, &mut rng);
        let config = settings.foca(roster.len(), 0);
        let mut engine = Self {
            foca: Foca::new(identity, config, rng, LocalCodec),
            incarnation: 0,
            settings,
            roster,
            unknown_origin: None,
            timers: TimerQueue::default(),
            idle_gossip: None,
            effects: Vec::new(),
            changed: true,
            contacts: contacts::Contacts::default(),
            reconnect,
            health: local_health::LocalHealth::default(),
            metadata: metadata::MetadataStore::default(),
            rejected: RejectedDatagrams::default(),
        };
        engine.reconnect(now);
        engine.recheck_suspects(now);
        Some(engine)
    }

    /// Assumes that every member of the roster is alive in `generation` and has been met before.
    /// For simulations that begin in the middle: meeting all members takes time that grows with
    /// their square.
    pub(super) fn assume_all_live(&mut self, now: Instant, generation: Generation) {
        let me = self.foca.identity().slot;
        let slots: Vec<_> =
            self.roster.iter().map(|(slot, _)| slot).filter(|slot| *slot != me).collect();
        let live = slots.into_iter().map(|slot| Member::alive(MemberIdentity { slot, generation }));
        self.call_foca(now, |foca, out| foca.apply_many(live, false, out));
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

    /// Returns the counters of datagrams that were not read.
    pub fn rejected(&self) -> RejectedDatagrams {
        self.rejected
    }

    /// Returns the time at which [`Engine::tick`] is next needed.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
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
        let late = self.timers.next().map(|at| now.saturating_duration_since(at));
        if let Some(lost) = late.filter(|late| *late > STALL_THRESHOLD) {
            self.timers.postpone(lost);
            self.lower_health(now, 2);
        }
        while let Some(task) = self.timers.due(now) {
            match task {
                Task::Foca(timer) => {
                    if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                        self.health.clear_suspicion(*member_id);
                        // foca 2.0.0 keeps a member that has refuted, yet notifies it that it is
                        // down.
                        if !self.is_suspect(*member_id, *incarnation) {
                            continue;
                        }
                    }
                    self.call_foca(now, |foca, out| foca.handle_timer(timer, out));
                }
                Task::Reconnect => self.reconnect(now),
                Task::Renotify => self.renotify(now),
                Task::RecheckSuspects => self.recheck_suspects(now),
                Task::DecayHealth => self.decay_health(now),
                Task::SendMeta => self.send_queued_meta(now),
            }
        }
    }

    /// Handles a datagram from the member that the session has authenticated as `from`. One from a
    /// node outside the roster is ignored. One that is not read changes only its counter.
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
        let decoded = wire::decode(datagram, &self.roster, slot, me);
        let decoded = decoded.inspect_err(|error| self.rejected.count(*error));
        let Some((preamble, body)) = decoded? else { return Ok(()) };
        self.contacts.on_datagram(slot, now);
        match body {
            Body::Swim(swim) => {
                self.bump_generation(now, swim.own_generation);
                if !swim.is_announce {
                    self.refute_stale(slot, &preamble);
                }
                self.unknown_origin = swim.unknown_origin;
                self.call_foca(now, |foca, out| foca.handle_data(&swim.packet, out));
                self.unknown_origin = None;
            }
            Body::Note(note) => {
                self.bump_generation(now, preamble.to_generation);
                self.note(now, slot, &preamble, note);
            }
        }
        self.request_meta_if_newer(now, slot, &preamble);
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
            self.reconnect.lost(slot);
        }
        self.changed = true;
        self.reconfigure();
        self.reconnect.reset_backoff(&self.settings);
        self.reconnect(now);
        true
    }

    /// Announces to the other members that this node leaves, so that they need not detect it.
    pub fn leave(&mut self, now: Instant) {
        self.call_foca(now, |foca, out| foca.leave_cluster(out));
    }

    /// Returns every member of the directory as this node sees it, itself included.
    pub fn view(&self, now: Instant) -> BTreeMap<NodeId, Liveness> {
        let mut view: BTreeMap<NodeId, Liveness> =
            self.roster.iter().map(|(slot, id)| (id, self.liveness(slot))).collect();
        let me = *self.foca.identity();
        let states = self.foca.iter_membership_state().map(|m| (*m.id(), m.state().into()));
        for (id, state) in states.chain([(me, LivenessState::Alive)]) {
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
            state: LivenessState::Unknown,
            last_heard: self.contacts.last_heard(slot),
            generation: 0,
            meta: self.metadata.of(slot, self.foca.identity().slot),
        }
    }

    /// Calls foca and executes its requests.
    fn call_foca(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut FocaEngine, &mut Outbox) -> Result<(), foca::Error>,
    ) {
        let mut out = Outbox::default();
        let before = self.foca.identity().generation;
        // foca rejects stale packets and those for an earlier generation; its state is consistent
        // either way.
        call(&mut self.foca, &mut out).ok();
        for (after, timer) in out.timers {
            if matches!(timer, Timer::PeriodicGossip(_)) {
                self.idle_gossip = Some((now + after, timer));
                continue;
            }
            let mut factor = 1;
            if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
                self.notify_suspect(now, *member_id, *incarnation);
                if self.contacts.last_heard(member_id.slot).is_none() {
                    factor = FIRST_CONTACT_FACTOR;
                }
            }
            self.timers.add(now + after * factor, Task::Foca(timer));
        }
        if self.foca.updates_backlog() > 0
            && let Some((due, timer)) = self.idle_gossip.take()
        {
            self.timers.add(due.max(now), Task::Foca(timer));
        }
        // A member that asks others to probe also probes once more itself: the answer may just be
        // lost.
        let again = out.packets.iter().find_map(|(_, packet)| probe_of(packet));
        let again = again.map(|(target, packet)| (target.slot, packet));
        for (slot, packet) in out.packets.into_iter().chain(again) {
            let (slot, packet) = self.contacts.redirect(slot, packet, &self.foca);
            let is_optional = is_optional(&packet);
            let encoded = wire::encode_swim(
                &packet,
                &self.roster,
                self.unknown_origin,
                self.metadata.version(),
            );
            if let (Some(to), Some((datagram, incarnation))) = (self.roster.node(slot), encoded) {
                self.incarnation = incarnation;
                self.effects.push(Effect::Send { to, datagram, is_optional });
            }
        }
        for event in out.events {
            self.on_member_event(now, event);
        }
        if self.foca.identity().generation != before {
            self.on_new_generation(now);
        }
    }

    fn on_member_event(&mut self, now: Instant, event: MemberEvent) {
        let (MemberEvent::Up(slot) | MemberEvent::Down(slot)) = event;
        let Some(id) = self.roster.node(slot) else { return };
        self.changed = true;
        match event {
            MemberEvent::Up(_) => {
                self.effects.push(Effect::Up(id));
                self.reconnect.found(slot);
            }
            MemberEvent::Down(_) => {
                self.effects.push(Effect::Down(id));
                self.reconnect.lost(slot);
                self.schedule_reconnect(now);
            }
        }
    }

    /// Takes a generation above `remembered`, when another member remembers a later one than ours.
    fn bump_generation(&mut self, now: Instant, remembered: Generation) {
        let me = *self.foca.identity();
        if let Some(generation) = remembered.checked_add(1).filter(|_| remembered > me.generation) {
            let next = MemberIdentity { slot: me.slot, generation };
            self.call_foca(now, |foca, out| foca.change_identity(next, out));
        }
    }

    /// After a change of identity foca waits for a packet before it is active: activate it at once.
    fn on_new_generation(&mut self, now: Instant) {
        self.incarnation = 0;
        self.reconnect.reset_backoff(&self.settings);
        self.call_foca(now, |foca, out| foca.apply_many(std::iter::empty(), false, out));
    }

    /// Refutes when the sender believes in an earlier generation of ours.
    fn refute_stale(&mut self, slot: Slot, preamble: &Preamble) {
        if preamble.to_generation < self.generation() {
            self.send_note(slot, &Note::Refute);
        }
    }

    fn note(&mut self, now: Instant, slot: Slot, preamble: &Preamble, note: Note) {
        let sender = MemberIdentity { slot, generation: preamble.generation };
        let lives = Member::new(sender, preamble.incarnation, foca::State::Alive);
        self.call_foca(now, |foca, out| foca.apply_many(std::iter::once(lives), true, out));
        self.refute_stale(slot, preamble);
        match note {
            Note::Suspect { incarnation } => {
                let me = *self.foca.identity();
                if preamble.to_generation == me.generation {
                    if incarnation >= self.incarnation {
                        let suspected = Member::new(me, incarnation, foca::State::Suspect);
                        let suspected = std::iter::once(suspected);
                        self.call_foca(now, |foca, out| foca.apply_many(suspected, true, out));
                    }
                    self.send_note(slot, &Note::Refute);
                }
            }
            Note::Refute => {}
            Note::RequestMeta => self.send_meta(slot),
            Note::Meta(meta) => self.changed |= self.metadata.store(slot, preamble, meta),
        }
    }

    fn send_note(&mut self, slot: Slot, note: &Note) {
        let to_generation = self.known(slot).map_or(0, |id| id.generation);
        self.send_note_to(MemberIdentity { slot, generation: to_generation }, note);
    }

    fn send_note_to(&mut self, to: MemberIdentity, note: &Note) {
        let Some(receiver) = self.roster.node(to.slot) else { return };
        let preamble = Preamble {
            generation: self.generation(),
            incarnation: self.incarnation,
            to_generation: to.generation,
            meta_version: self.metadata.version(),
        };
        let datagram = wire::encode(&preamble, note);
        self.effects.push(Effect::Send { to: receiver, datagram, is_optional: false });
    }

    /// Returns the member in `slot` as foca last knew it, alive or not.
    fn known(&self, slot: Slot) -> Option<MemberIdentity> {
        self.foca.iter_membership_state().map(|m| *m.id()).find(|id| id.slot == slot)
    }

    fn reconfigure(&mut self) {
        let config = self.settings.foca(self.roster.len(), self.health.score());
        // foca rejects only other probe timings, and those never change.
        self.foca.set_config(config).ok();
    }

    fn forget(&mut self, now: Instant, slot: Slot) {
        if let Some(id) = self.known(slot) {
            let down = std::iter::once(Member::down(id));
            self.call_foca(now, |foca, out| foca.apply_many(down, false, out));
            self.call_foca(now, |foca, out| foca.handle_timer(Timer::RemoveDown(id), out));
        }
        self.contacts.forget(slot);
        self.reconnect.found(slot);
        self.health.forget(slot);
        self.metadata.forget(slot);
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
