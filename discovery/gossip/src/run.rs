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

use super::engine::{Effect, Engine, EngineParams, RejectedDatagrams};
use super::{Generation, Liveness, NodeMeta, Roster, Settings};
use muster_transport::endpoint::{Endpoint, Trust};

/// Interval at which the view is refreshed when only `last_heard` has changed.
const REFRESH: Duration = Duration::from_secs(1);
/// Datagrams processed in a row before timers run.
const BATCH: usize = 64;

/// Transport to the other members.
pub trait DatagramTransport: Send + Sync + 'static {
    /// Sends one datagram, or drops it. Never blocks.
    fn send(&self, to: NodeId, datagram: Bytes);

    /// Like `send`, but drops it if it needs a new session while several are being set up.
    fn send_optional(&self, to: NodeId, datagram: Bytes);
}

impl DatagramTransport for Endpoint {
    fn send(&self, to: NodeId, datagram: Bytes) {
        self.send_datagram(to, datagram);
    }

    fn send_optional(&self, to: NodeId, datagram: Bytes) {
        self.send_optional_datagram(to, datagram);
    }
}

/// Members as this node sees them.
pub type LivenessView = Arc<BTreeMap<NodeId, Liveness>>;

/// Inputs and parameters of gossip.
#[derive(Debug)]
pub struct GossipParams<D> {
    pub me: NodeId,
    /// See [`EngineParams::generation`].
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
    view: watch::Receiver<LivenessView>,
    meta: watch::Sender<NodeMeta>,
}

impl Gossip {
    /// Prepares gossip; it begins when the driver runs.
    pub fn new<D: DatagramTransport>(
        params: GossipParams<D>,
        stop: CancellationToken,
    ) -> (Self, GossipTask<D>) {
        let (views, view) = watch::channel(LivenessView::default());
        let (meta, metadata) = watch::channel(NodeMeta::default());
        (
            Self { view, meta },
            GossipTask { params, stop, views, metadata, engine: None, roster: Arc::default() },
        )
    }

    /// Returns a watch of every member of the directory. Receivers wake when a state, a generation
    /// or the metadata changes; a suspicion or a generation may come a second late. `last_heard` is
    /// at most a second old and wakes no receiver.
    pub fn liveness(&self) -> watch::Receiver<LivenessView> {
        self.view.clone()
    }

    /// Replaces this node's metadata.
    pub fn set_meta(&self, meta: NodeMeta) {
        self.meta.send_if_modified(|old| {
            let differs = *old != meta;
            if differs {
                *old = meta;
            }
            differs
        });
    }
}

/// Task behind [`Gossip`]: the caller spawns [`GossipTask::run`].
#[derive(Debug)]
pub struct GossipTask<D> {
    params: GossipParams<D>,
    stop: CancellationToken,
    views: watch::Sender<LivenessView>,
    metadata: watch::Receiver<NodeMeta>,
    engine: Option<Engine>,
    roster: Arc<Roster>,
}

impl<D: DatagramTransport> GossipTask<D> {
    /// Gossips until `stop`, then announces that this node leaves.
    pub async fn run(mut self) {
        self.on_directory();
        let mut refresh = tokio::time::interval(REFRESH);
        let mut batch = Vec::with_capacity(BATCH);
        let mut inbox_open = true;
        let stop = self.stop.clone();
        loop {
            let mut due = false;
            let deadline = self.engine.as_ref().and_then(Engine::next_deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.params.inbox.recv_many(&mut batch, BATCH), if inbox_open => {
                    inbox_open = count > 0;
                    self.on_datagrams(&mut batch);
                }
                Ok(()) = self.params.trust.changed() => self.on_directory(),
                Ok(()) = self.metadata.changed() => {
                    let meta = self.metadata.borrow_and_update().clone();
                    self.with_engine(|engine, now| engine.set_meta(now, &meta));
                }
                _ = refresh.tick() => due = true,
                () = sleep_until(deadline.map_or_else(far, Instant::from_std)) => {}
            }
            self.with_engine(Engine::tick);
            if self.engine.as_mut().is_none_or(Engine::take_changed) || due {
                self.publish();
            }
        }
        self.with_engine(Engine::leave);
    }

    fn on_datagrams(&mut self, batch: &mut Vec<(NodeId, Bytes)>) {
        self.with_engine(|engine, now| {
            for (from, datagram) in batch.iter() {
                if let Err(error) = engine.receive(now, *from, datagram) {
                    let RejectedDatagrams { malformed, unknown } = engine.rejected();
                    let peer = from.short();
                    debug!(%peer, %error, malformed, unknown, "gossip datagram rejected");
                }
            }
        });
        batch.clear();
    }

    fn on_directory(&mut self) {
        let trust = Arc::clone(&self.params.trust.borrow_and_update());
        if !self.roster.matches(&trust.directory) {
            self.roster =
                Arc::new(self.roster.with_members(&trust.directory.keys().copied().collect()));
        }
        let now = Instant::now().into_std();
        let roster = Arc::clone(&self.roster);
        match &mut self.engine {
            Some(engine) if !Arc::ptr_eq(engine.roster(), &self.roster) => {
                if !engine.set_roster(now, roster) {
                    // If this node is added again, it starts above its current generation.
                    self.params.generation = engine.generation().saturating_add(1);
                    self.engine = None;
                }
            }
            Some(_) => {}
            None => self.start(roster, now),
        }
        self.perform();
    }

    fn start(&mut self, roster: Arc<Roster>, now: std::time::Instant) {
        use rand::SeedableRng;
        let GossipParams { me, generation, settings, rng, .. } = &mut self.params;
        let start = EngineParams {
            me: *me,
            generation: *generation,
            settings: settings.clone(),
            roster,
            rng: StdRng::from_rng(rng),
        };
        self.engine = Engine::new(start, now);
        if let Some(engine) = &mut self.engine {
            engine.set_meta(now, &self.metadata.borrow());
        }
    }

    fn with_engine(&mut self, call: impl FnOnce(&mut Engine, std::time::Instant)) {
        if let Some(engine) = &mut self.engine {
            call(engine, Instant::now().into_std());
        }
        self.perform();
    }

    fn perform(&mut self) {
        let effects = self.engine.as_mut().map(Engine::take_effects).unwrap_or_default();
        for effect in effects {
            match effect {
                Effect::Send { to, datagram, is_optional: false } => {
                    self.params.datagrams.send(to, datagram);
                }
                Effect::Send { to, datagram, is_optional: true } => {
                    self.params.datagrams.send_optional(to, datagram);
                }
                Effect::Up(id) => info!(peer = %id.short(), "member alive"),
                Effect::Down(id) => info!(peer = %id.short(), "member down"),
            }
        }
    }

    fn publish(&self) {
        let now = Instant::now().into_std();
        let view = self.engine.as_ref().map(|engine| engine.view(now)).unwrap_or_default();
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
                || old.meta != new.meta
        })
}

/// No deadline: the refresh comes first anyway.
fn far() -> Instant {
    Instant::now() + REFRESH * 2
}

#[cfg(test)]
mod tests;
