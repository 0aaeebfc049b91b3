//! Task that owns the engine. Its inputs are datagrams, timers, the directory and the metadata; its
//! outputs are datagrams and the view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::NodeId;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::core::{Core, Effect, Start};
use super::{Card, Generation, Liveness, Roster, Settings};
use muster_transport::endpoint::{Endpoint, Trust};

/// Interval at which the view is refreshed when only `last_heard` has changed.
const REFRESH: Duration = Duration::from_secs(1);
/// Datagrams processed in a row before timers run.
const BATCH: usize = 64;

/// Transport to the other members.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one datagram, or drops it. Never blocks.
    fn send(&self, to: NodeId, datagram: Bytes);

    /// Like `send`, but drops it if it needs a new session while several are being set up.
    fn offer(&self, to: NodeId, datagram: Bytes);
}

impl Datagrams for Endpoint {
    fn send(&self, to: NodeId, datagram: Bytes) {
        self.send_datagram(to, datagram);
    }

    fn offer(&self, to: NodeId, datagram: Bytes) {
        self.offer_datagram(to, datagram);
    }
}

/// Members as this node sees them.
pub type View = Arc<BTreeMap<NodeId, Liveness>>;

/// Inputs and parameters of gossip.
#[derive(Debug)]
pub struct Parts<D> {
    pub me: NodeId,
    /// See [`Start::generation`].
    pub generation: Generation,
    pub settings: Settings,
    pub datagrams: D,
    /// Datagrams, each with the node that the session has authenticated.
    pub inbox: mpsc::Receiver<(NodeId, Bytes)>,
    /// Its directory defines the members. Gossip pauses while this node's own id is not in it.
    pub trust: watch::Receiver<Arc<Trust>>,
    pub rng: StdRng,
}

/// Handle to the view. Clones share it.
#[derive(Debug, Clone)]
pub struct Gossip {
    view: watch::Receiver<View>,
    card: watch::Sender<Card>,
}

impl Gossip {
    /// Prepares gossip; it begins when the driver runs.
    pub fn new<D: Datagrams>(parts: Parts<D>, stop: CancellationToken) -> (Self, Driver<D>) {
        let (views, view) = watch::channel(View::default());
        let (card, cards) = watch::channel(Card::default());
        (
            Self { view, card },
            Driver { parts, stop, views, cards, core: None, roster: Arc::default() },
        )
    }

    /// Returns a watch of every member of the directory. Receivers wake when a state, a generation
    /// or the metadata changes; a suspicion or a generation may come a second late. `last_heard` is
    /// at most a second old and wakes no receiver.
    pub fn liveness(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Replaces this node's metadata.
    pub fn set_card(&self, card: Card) {
        self.card.send_if_modified(|old| {
            let differs = *old != card;
            if differs {
                *old = card;
            }
            differs
        });
    }
}

/// Task behind [`Gossip`]: the caller spawns [`Driver::run`].
#[derive(Debug)]
pub struct Driver<D> {
    parts: Parts<D>,
    stop: CancellationToken,
    views: watch::Sender<View>,
    cards: watch::Receiver<Card>,
    core: Option<Core>,
    roster: Arc<Roster>,
}

impl<D: Datagrams> Driver<D> {
    /// Gossips until `stop`, then announces that this node leaves.
    pub async fn run(mut self) {
        self.take_directory();
        let mut refresh = tokio::time::interval(REFRESH);
        let mut batch = Vec::with_capacity(BATCH);
        let mut inbox_open = true;
        let stop = self.stop.clone();
        loop {
            let mut due = false;
            let deadline = self.core.as_ref().and_then(Core::next_deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.parts.inbox.recv_many(&mut batch, BATCH), if inbox_open => {
                    inbox_open = count > 0;
                    self.take_datagrams(&mut batch);
                }
                Ok(()) = self.parts.trust.changed() => self.take_directory(),
                Ok(()) = self.cards.changed() => {
                    let card = self.cards.borrow_and_update().clone();
                    self.with_core(|core, now| core.set_card(now, &card));
                }
                _ = refresh.tick() => due = true,
                () = sleep_until(deadline.map_or_else(far, Instant::from_std)) => {}
            }
            self.with_core(Core::tick);
            if self.core.as_mut().is_none_or(Core::take_changed) || due {
                self.publish();
            }
        }
        self.with_core(Core::leave);
    }

    fn take_datagrams(&mut self, batch: &mut Vec<(NodeId, Bytes)>) {
        self.with_core(|core, now| {
            for (from, datagram) in batch.iter() {
                if let Err(error) = core.receive(now, *from, datagram) {
                    debug!(peer = %from.short(), %error, "gossip datagram rejected");
                }
            }
        });
        batch.clear();
    }

    fn take_directory(&mut self) {
        let trust = Arc::clone(&self.parts.trust.borrow_and_update());
        if !self.roster.is(&trust.directory) {
            self.roster = Arc::new(self.roster.with(&trust.directory.keys().copied().collect()));
        }
        let now = Instant::now().into_std();
        let roster = Arc::clone(&self.roster);
        match &mut self.core {
            Some(core) if !Arc::ptr_eq(core.roster(), &self.roster) => {
                if !core.set_roster(now, roster) {
                    // If this node is added again, it starts above its current generation.
                    self.parts.generation = core.generation().saturating_add(1);
                    self.core = None;
                }
            }
            Some(_) => {}
            None => self.start(roster, now),
        }
        self.perform();
    }

    fn start(&mut self, roster: Arc<Roster>, now: std::time::Instant) {
        use rand::SeedableRng;
        let Parts { me, generation, settings, rng, .. } = &mut self.parts;
        let start = Start {
            me: *me,
            generation: *generation,
            settings: settings.clone(),
            roster,
            rng: StdRng::from_rng(rng),
        };
        self.core = Core::new(start, now);
        if let Some(core) = &mut self.core {
            core.set_card(now, &self.cards.borrow());
        }
    }

    fn with_core(&mut self, call: impl FnOnce(&mut Core, std::time::Instant)) {
        if let Some(core) = &mut self.core {
            call(core, Instant::now().into_std());
        }
        self.perform();
    }

    fn perform(&mut self) {
        let effects = self.core.as_mut().map(Core::take_effects).unwrap_or_default();
        for effect in effects {
            match effect {
                Effect::Send { to, datagram, can_be_spared: false } => {
                    self.parts.datagrams.send(to, datagram);
                }
                Effect::Send { to, datagram, can_be_spared: true } => {
                    self.parts.datagrams.offer(to, datagram);
                }
                Effect::Up(id) => info!(peer = %id.short(), "member is seen"),
                Effect::Down(id) => info!(peer = %id.short(), "member is no longer seen"),
            }
        }
    }

    fn publish(&self) {
        let now = Instant::now().into_std();
        let view = self.core.as_ref().map(|core| core.view(now)).unwrap_or_default();
        self.views.send_if_modified(|old| {
            let wakes = differs(old, &view);
            *old = Arc::new(view);
            wakes
        });
    }
}

/// Returns true when more than `last_heard` differs.
fn differs(old: &BTreeMap<NodeId, Liveness>, new: &BTreeMap<NodeId, Liveness>) -> bool {
    old.len() != new.len()
        || old.iter().zip(new).any(|((a, old), (b, new))| {
            a != b
                || old.state != new.state
                || old.generation != new.generation
                || old.card != new.card
        })
}

/// No deadline: the refresh comes first anyway.
fn far() -> Instant {
    Instant::now() + REFRESH * 2
}

#[cfg(test)]
mod tests;
