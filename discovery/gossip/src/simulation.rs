//! Many engines in one process on an in-memory network, with virtual time and seeded faults. Tests
//! and benchmarks of gossip use it. Measurements from it are simulated; label them so.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_types::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::engine::{Effect, Engine, EngineParams};
use super::{Generation, LivenessState, NodeMeta, Roster, Settings};

/// Overhead per datagram in bytes: IPv4 and UDP headers (28), a QUIC short header with an
/// eight-byte connection id (11), the AEAD tag (16) and the datagram frame (3).
pub const OVERHEAD: usize = 58;

/// Maximum number of datagrams that wait for a paused member.
const SOCKET_BUFFER: usize = 256;

/// Network between the members.
#[derive(Debug, Clone)]
pub struct Network {
    /// One-way delay, evenly distributed.
    pub latency: Range<Duration>,
    /// Share of datagrams that are lost, 0 to 1.
    pub loss: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self { latency: Duration::from_micros(200)..Duration::from_millis(2), loss: 0.0 }
    }
}

/// Counters of one member since the last [`Simulation::take_tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub datagrams: u64,
    /// Bytes of gossip, without [`OVERHEAD`].
    pub bytes: u64,
    /// Number of times it declared a member down.
    pub downs: u64,
    /// Datagrams it could not read; any is a bug.
    pub rejected: u64,
    /// Number of wake-ups by its own timers.
    pub wakes: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SimEvent {
    Arrive { to: usize, from: usize, datagram: Bytes },
    Wake { index: usize, run: u64 },
}

#[derive(Debug)]
struct Member {
    engine: Option<Engine>,
    run: u64,
    /// Due time of its next [`SimEvent::Wake`], so that only one is queued.
    wakes: Option<Instant>,
    group: u8,
    /// While paused: contents of the socket's buffer.
    buffer: Option<Vec<(usize, Bytes)>>,
    tally: Tally,
}

/// Cluster of engines.
#[derive(Debug)]
pub struct Simulation {
    settings: Settings,
    pub network: Network,
    ids: Vec<NodeId>,
    numbers: HashMap<NodeId, usize>,
    members: Vec<Member>,
    cut: HashSet<(usize, usize)>,
    roster: Arc<Roster>,
    queue: BinaryHeap<Reverse<(Instant, u64, SimEvent)>>,
    sequence: u64,
    began: Instant,
    now: Instant,
    rng: StdRng,
}

impl Simulation {
    /// Creates `members` members that are all in the directory; none runs yet. `began` is an
    /// arbitrary moment: the simulation only adds to it.
    pub fn new(members: usize, seed: u64, settings: Settings, began: Instant) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids: Vec<_> = (0..members).map(|_| NodeId::from_bytes(rng.random())).collect();
        let roster = Arc::new(Roster::default().with_members(&ids.iter().copied().collect()));
        let idle = || Member {
            engine: None,
            run: 0,
            wakes: None,
            group: 0,
            buffer: None,
            tally: Tally::default(),
        };
        Self {
            settings,
            network: Network::default(),
            members: ids.iter().map(|_| idle()).collect(),
            numbers: ids.iter().enumerate().map(|(n, id)| (*id, n)).collect(),
            ids,
            cut: HashSet::new(),
            roster,
            queue: BinaryHeap::new(),
            sequence: 0,
            began,
            now: began,
            rng,
        }
    }

    /// Returns the number of members, running or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Starts a member with a generation: higher than its last, or as a wrong clock gives it.
    pub fn start(&mut self, index: usize, generation: Generation) {
        self.members[index].engine = self.new_engine(index, generation, self.now);
        self.begin(index);
    }

    fn new_engine(&mut self, index: usize, generation: Generation, at: Instant) -> Option<Engine> {
        let start = EngineParams {
            me: self.ids[index],
            generation,
            settings: self.settings.clone(),
            roster: Arc::clone(&self.roster),
            rng: StdRng::from_rng(&mut self.rng),
        };
        Engine::new(start, at)
    }

    fn begin(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.run += 1;
        member.wakes = None;
        member.buffer = None;
        self.flush(index);
    }

    pub fn start_all(&mut self) {
        for index in 0..self.len() {
            self.start(index, 1);
        }
    }

    /// Starts all members with all contacts already made. Their timers are spread over `span`, such
    /// as a probe period. (Takes time with the cube of the members, on all processors: half a
    /// second for 1,000, minutes for 10,000, optimised.)
    pub fn start_with_contacts(&mut self, span: Duration) {
        let (settings, roster) = (&self.settings, &self.roster);
        let starts: Vec<_> = self
            .ids
            .iter()
            .map(|me| {
                let start = EngineParams {
                    me: *me,
                    generation: 1,
                    settings: settings.clone(),
                    roster: Arc::clone(roster),
                    rng: StdRng::from_rng(&mut self.rng),
                };
                (start, self.now + self.rng.random_range(Duration::ZERO..span))
            })
            .collect();
        for (index, engine) in engines_with_contacts(starts).into_iter().enumerate() {
            self.members[index].engine = engine;
            self.begin(index);
        }
    }

    /// Stops a member without notice.
    pub fn kill(&mut self, index: usize) {
        self.members[index].engine = None;
    }

    /// Stops a member that announces its leave.
    pub fn stop(&mut self, index: usize) {
        let now = self.now;
        self.with(index, |engine| engine.leave(now));
        self.kill(index);
    }

    /// Stops a member's clock and queues its datagrams, as SIGSTOP does.
    pub fn pause(&mut self, index: usize) {
        self.members[index].buffer.get_or_insert_default();
    }

    /// Resumes a member. Its timers run before the queued datagrams, as they may.
    pub fn resume(&mut self, index: usize) {
        let waited = self.members[index].buffer.take().unwrap_or_default();
        let now = self.now;
        self.with(index, |engine| engine.tick(now));
        for (from, datagram) in waited {
            self.arrive(index, from, &datagram);
        }
    }

    /// Drops all datagrams from `from` to `to`, in this direction only.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn set_meta(&mut self, index: usize, meta: &NodeMeta) {
        let now = self.now;
        self.with(index, |engine| engine.set_meta(now, meta));
    }

    /// Limits `index` to members of the same group.
    pub fn set_group(&mut self, index: usize, group: u8) {
        self.members[index].group = group;
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for member in &mut self.members {
            member.group = 0;
        }
    }

    /// Removes members from every directory. Their engines end, as their sessions do.
    pub fn remove(&mut self, gone: &BTreeSet<usize>) {
        let keep = |index: &usize| !gone.contains(index);
        let members = (0..self.len()).filter(keep).map(|index| self.ids[index]).collect();
        self.roster = Arc::new(self.roster.with_members(&members));
        for index in 0..self.len() {
            let (now, roster) = (self.now, Arc::clone(&self.roster));
            let mut stays = true;
            self.with(index, |engine| stays = engine.set_roster(now, roster));
            if !stays {
                self.kill(index);
            }
        }
    }

    pub fn engine(&self, index: usize) -> Option<&Engine> {
        self.members[index].engine.as_ref()
    }

    /// Returns the state of `target` as `index` sees it; None while `index` does not run.
    pub fn state(&self, index: usize, target: usize) -> Option<LivenessState> {
        let view = self.engine(index)?.view(self.now);
        view.get(&self.ids[target]).map(|liveness| liveness.state)
    }

    /// Returns the members that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|index| self.members[*index].engine.is_some())
    }

    /// Returns true when every running member sees exactly the running members.
    pub fn converged(&self) -> bool {
        let others = self.running().count().saturating_sub(1);
        self.members.iter().filter_map(|m| m.engine.as_ref()).all(|engine| engine.seen() == others)
    }

    /// Returns and resets each member's counters.
    pub fn take_tally(&mut self) -> Vec<Tally> {
        self.members.iter_mut().map(|member| std::mem::take(&mut member.tally)).collect()
    }

    /// Runs the simulation for `span`.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, ..))) = self.queue.peek() {
            if *at > end {
                break;
            }
            self.step();
        }
        self.now = end;
    }

    /// Runs the simulation until `wanted` holds, checked every 10 ms. Returns the time it took, or
    /// None when `limit` passed first.
    pub fn until(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let from = self.now;
        while !wanted(self) {
            if self.now - from >= limit {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.now - from)
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, event))) = self.queue.pop() else { return };
        self.now = at;
        let now = self.now;
        match event {
            SimEvent::Arrive { to, from, datagram } => match &mut self.members[to].buffer {
                Some(waiting) if waiting.len() < SOCKET_BUFFER => waiting.push((from, datagram)),
                Some(_) => {}
                None => self.arrive(to, from, &datagram),
            },
            SimEvent::Wake { index, run } => {
                let member = &mut self.members[index];
                if member.run == run && member.wakes == Some(at) {
                    member.wakes = None;
                    if member.buffer.is_some() {
                        return;
                    }
                    member.tally.wakes += 1;
                    self.with(index, |engine| engine.tick(now));
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, from: usize, datagram: &[u8]) {
        let (now, from) = (self.now, self.ids[from]);
        let mut rejected = 0;
        self.with(to, |engine| {
            rejected = u64::from(engine.receive(now, from, datagram).is_err());
        });
        self.members[to].tally.rejected += rejected;
    }

    fn with(&mut self, index: usize, call: impl FnOnce(&mut Engine)) {
        if let Some(engine) = &mut self.members[index].engine {
            call(engine);
            self.flush(index);
        }
    }

    /// Sends the engine's datagrams and schedules its next wake-up.
    fn flush(&mut self, index: usize) {
        let member = &mut self.members[index];
        let Some(engine) = &mut member.engine else { return };
        let effects = engine.take_effects();
        let deadline = engine.next_deadline().map(|at| at.max(self.now));
        if let Some(at) = deadline.filter(|at| member.wakes.is_none_or(|wakes| *at < wakes)) {
            member.wakes = Some(at);
            self.sequence += 1;
            let wake = SimEvent::Wake { index, run: member.run };
            self.queue.push(Reverse((at, self.sequence, wake)));
        }
        for effect in effects {
            match effect {
                Effect::Send { to, datagram, .. } => self.transmit(index, to, datagram),
                Effect::Up(_) => {}
                Effect::Down(_) => self.members[index].tally.downs += 1,
            }
        }
    }

    fn transmit(&mut self, from: usize, to: NodeId, datagram: Bytes) {
        let tally = &mut self.members[from].tally;
        tally.datagrams += 1;
        tally.bytes += datagram.len() as u64;
        let Some(to) = self.numbers.get(&to).copied() else { return };
        let lost = self.network.loss > 0.0 && self.rng.random_bool(self.network.loss);
        let apart = self.members[from].group != self.members[to].group;
        if lost || apart || self.cut.contains(&(from, to)) {
            return;
        }
        let delay = self.rng.random_range(self.network.latency.clone());
        self.sequence += 1;
        let arrive = SimEvent::Arrive { to, from, datagram };
        self.queue.push(Reverse((self.now + delay, self.sequence, arrive)));
    }
}

/// Returns the engines of members that have all met, created in parallel: each is independent.
fn engines_with_contacts(mut starts: Vec<(EngineParams, Instant)>) -> Vec<Option<Engine>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let share = starts.len().div_ceil(processors).max(1);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        while !starts.is_empty() {
            let rest = starts.split_off(share.min(starts.len()));
            let mine = std::mem::replace(&mut starts, rest);
            threads.push(scope.spawn(|| {
                let made = mine.into_iter().map(|(start, at)| {
                    let mut engine = Engine::new(start, at)?;
                    engine.assume_all_live(at, 1);
                    engine.take_effects(); // no introductions are needed
                    Some(engine)
                });
                made.collect::<Vec<_>>()
            }));
        }
        let made = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        made.flat_map(|engines| engines.expect("creating an engine does not panic")).collect()
    })
}

#[cfg(test)]
mod tests;
