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

use super::core::{Core, Effect, Start};
use super::{Card, Generation, Roster, Settings, State};

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
    pub refused: u64,
    /// Number of wake-ups by its own timers.
    pub wakes: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrive { to: usize, from: usize, datagram: Bytes },
    Wake { who: usize, life: u64 },
}

#[derive(Debug)]
struct Member {
    core: Option<Core>,
    life: u64,
    /// Due time of its next [`Happening::Wake`], so that only one is queued.
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
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
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
        let roster = Arc::new(Roster::default().with(&ids.iter().copied().collect()));
        let idle = || Member {
            core: None,
            life: 0,
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
    pub fn start(&mut self, who: usize, generation: Generation) {
        self.members[who].core = self.core_of(who, generation, self.now);
        self.begin(who);
    }

    fn core_of(&mut self, who: usize, generation: Generation, at: Instant) -> Option<Core> {
        let start = Start {
            me: self.ids[who],
            generation,
            settings: self.settings.clone(),
            roster: Arc::clone(&self.roster),
            rng: StdRng::from_rng(&mut self.rng),
        };
        Core::new(start, at)
    }

    fn begin(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.life += 1;
        member.wakes = None;
        member.buffer = None;
        self.settle(who);
    }

    pub fn start_all(&mut self) {
        for who in 0..self.len() {
            self.start(who, 1);
        }
    }

    /// Starts all members with all contacts already made. Their timers are spread over `span`, such
    /// as a probe period. (Takes time with the cube of the members, on all processors: half a
    /// second for 1000, minutes for 10 000, optimised.)
    pub fn start_acquainted(&mut self, span: Duration) {
        let (settings, roster) = (&self.settings, &self.roster);
        let starts: Vec<_> = self
            .ids
            .iter()
            .map(|me| {
                let start = Start {
                    me: *me,
                    generation: 1,
                    settings: settings.clone(),
                    roster: Arc::clone(roster),
                    rng: StdRng::from_rng(&mut self.rng),
                };
                (start, self.now + self.rng.random_range(Duration::ZERO..span))
            })
            .collect();
        for (who, core) in acquainted(starts).into_iter().enumerate() {
            self.members[who].core = core;
            self.begin(who);
        }
    }

    /// Stops a member without notice.
    pub fn kill(&mut self, who: usize) {
        self.members[who].core = None;
    }

    /// Stops a member that announces its leave.
    pub fn stop(&mut self, who: usize) {
        let now = self.now;
        self.with(who, |core| core.leave(now));
        self.kill(who);
    }

    /// Stops a member's clock and queues its datagrams, as SIGSTOP does.
    pub fn pause(&mut self, who: usize) {
        self.members[who].buffer.get_or_insert_default();
    }

    /// Resumes a member. Its timers run before the queued datagrams, as they may.
    pub fn resume(&mut self, who: usize) {
        let waited = self.members[who].buffer.take().unwrap_or_default();
        let now = self.now;
        self.with(who, |core| core.tick(now));
        for (from, datagram) in waited {
            self.arrive(who, from, &datagram);
        }
    }

    /// Drops all datagrams from `from` to `to`, in this direction only.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn set_card(&mut self, who: usize, card: &Card) {
        let now = self.now;
        self.with(who, |core| core.set_card(now, card));
    }

    /// Limits `who` to members of the same group.
    pub fn set_group(&mut self, who: usize, group: u8) {
        self.members[who].group = group;
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for member in &mut self.members {
            member.group = 0;
        }
    }

    /// Removes members from every directory. Their engines end, as their sessions do.
    pub fn remove(&mut self, gone: &BTreeSet<usize>) {
        let keep = |who: &usize| !gone.contains(who);
        let members = (0..self.len()).filter(keep).map(|who| self.ids[who]).collect();
        self.roster = Arc::new(self.roster.with(&members));
        for who in 0..self.len() {
            let (now, roster) = (self.now, Arc::clone(&self.roster));
            let mut stays = true;
            self.with(who, |core| stays = core.set_roster(now, roster));
            if !stays {
                self.kill(who);
            }
        }
    }

    pub fn core(&self, who: usize) -> Option<&Core> {
        self.members[who].core.as_ref()
    }

    /// Returns the state of `whom` as `who` sees it; None while `who` does not run.
    pub fn state(&self, who: usize, whom: usize) -> Option<State> {
        let view = self.core(who)?.view(self.now);
        view.get(&self.ids[whom]).map(|liveness| liveness.state)
    }

    /// Returns the members that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|who| self.members[*who].core.is_some())
    }

    /// Returns true when every running member sees exactly the running members.
    pub fn converged(&self) -> bool {
        let others = self.running().count().saturating_sub(1);
        self.members.iter().filter_map(|m| m.core.as_ref()).all(|core| core.seen() == others)
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
            self.happen();
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

    fn happen(&mut self) {
        let Some(Reverse((at, _, happening))) = self.queue.pop() else { return };
        self.now = at;
        let now = self.now;
        match happening {
            Happening::Arrive { to, from, datagram } => match &mut self.members[to].buffer {
                Some(waiting) if waiting.len() < SOCKET_BUFFER => waiting.push((from, datagram)),
                Some(_) => {}
                None => self.arrive(to, from, &datagram),
            },
            Happening::Wake { who, life } => {
                let member = &mut self.members[who];
                if member.life == life && member.wakes == Some(at) {
                    member.wakes = None;
                    if member.buffer.is_some() {
                        return;
                    }
                    member.tally.wakes += 1;
                    self.with(who, |core| core.tick(now));
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, from: usize, datagram: &[u8]) {
        let (now, from) = (self.now, self.ids[from]);
        let mut refused = 0;
        self.with(to, |core| {
            refused = u64::from(core.receive(now, from, datagram).is_err());
        });
        self.members[to].tally.refused += refused;
    }

    fn with(&mut self, who: usize, call: impl FnOnce(&mut Core)) {
        if let Some(core) = &mut self.members[who].core {
            call(core);
            self.settle(who);
        }
    }

    /// Sends the engine's datagrams and schedules its next wake-up.
    fn settle(&mut self, who: usize) {
        let member = &mut self.members[who];
        let Some(core) = &mut member.core else { return };
        let effects = core.take_effects();
        let deadline = core.next_deadline().map(|at| at.max(self.now));
        if let Some(at) = deadline.filter(|at| member.wakes.is_none_or(|wakes| *at < wakes)) {
            member.wakes = Some(at);
            self.sequence += 1;
            let wake = Happening::Wake { who, life: member.life };
            self.queue.push(Reverse((at, self.sequence, wake)));
        }
        for effect in effects {
            match effect {
                Effect::Send { to, datagram, .. } => self.post(who, to, datagram),
                Effect::Up(_) => {}
                Effect::Down(_) => self.members[who].tally.downs += 1,
            }
        }
    }

    fn post(&mut self, from: usize, to: NodeId, datagram: Bytes) {
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
        let arrive = Happening::Arrive { to, from, datagram };
        self.queue.push(Reverse((self.now + delay, self.sequence, arrive)));
    }
}

/// Returns the engines of members that have all met, created in parallel: each is independent.
fn acquainted(mut starts: Vec<(Start, Instant)>) -> Vec<Option<Core>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let share = starts.len().div_ceil(processors).max(1);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        while !starts.is_empty() {
            let rest = starts.split_off(share.min(starts.len()));
            let mine = std::mem::replace(&mut starts, rest);
            threads.push(scope.spawn(|| {
                let made = mine.into_iter().map(|(start, at)| {
                    let mut core = Core::new(start, at)?;
                    core.assume_all_live(at, 1);
                    core.take_effects(); // no introductions are needed
                    Some(core)
                });
                made.collect::<Vec<_>>()
            }));
        }
        let made = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        made.flat_map(|cores| cores.expect("making a core does not panic")).collect()
    })
}

#[cfg(test)]
mod tests;
