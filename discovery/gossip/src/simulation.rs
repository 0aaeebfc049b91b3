//! Many cores in one process on a network of memory, with virtual time and seeded faults: what
//! tests and benches of gossip run on. Figures from here are simulated and are to be called so.

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

/// What a datagram costs beside its own bytes: IPv4 and UDP headers (28), a QUIC short header
/// with an eight-byte connection id (11), the AEAD tag (16) and the datagram frame (3).
pub const OVERHEAD: usize = 58;

/// Datagrams that wait for a paused member at most.
const SOCKET_BUFFER: usize = 256;

/// The network between the members.
#[derive(Debug, Clone)]
pub struct Network {
    /// One-way delay, evenly distributed.
    pub latency: Range<Duration>,
    /// The share of datagrams that are lost, 0 to 1.
    pub loss: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self { latency: Duration::from_micros(200)..Duration::from_millis(2), loss: 0.0 }
    }
}

/// What one member sent and did since the last [`Simulation::take_tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub datagrams: u64,
    /// Bytes of gossip, without [`OVERHEAD`].
    pub bytes: u64,
    /// How often it held somebody dead.
    pub downs: u64,
    /// Datagrams it could not read; none, or the code is wrong.
    pub refused: u64,
    /// How often it was woken by its own clock.
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
    /// When its next [`Happening::Wake`] is due, so that it has only one.
    wakes: Option<Instant>,
    group: u8,
    /// While paused: what waits in the socket's buffer.
    buffer: Option<Vec<(usize, Bytes)>>,
    tally: Tally,
}

/// A cluster of cores.
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
    /// `members` members that are all in the directory; none runs yet. `began` is any moment: the
    /// simulation only adds to it.
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

    /// How many members the simulation has, running or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// Starts a member with a generation: higher than its last, or what a wrong clock says.
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

    /// Starts all as members that have met long ago. Their clocks are spread over `span`, such as
    /// a probe period. (Takes time with the cube of the members, shared by the processors: half a
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

    /// Ends a member without a word.
    pub fn kill(&mut self, who: usize) {
        self.members[who].core = None;
    }

    /// Ends a member that says goodbye.
    pub fn stop(&mut self, who: usize) {
        let now = self.now;
        self.with(who, |core| core.leave(now));
        self.kill(who);
    }

    /// Stops a member's clock and lets its datagrams wait, as SIGSTOP does.
    pub fn pause(&mut self, who: usize) {
        self.members[who].buffer.get_or_insert_default();
    }

    /// Lets a member go on. Its timers come before the datagrams that waited, as they may.
    pub fn resume(&mut self, who: usize) {
        let waited = self.members[who].buffer.take().unwrap_or_default();
        let now = self.now;
        self.with(who, |core| core.tick(now));
        for (from, datagram) in waited {
            self.arrive(who, from, &datagram);
        }
    }

    /// Loses everything that `from` sends to `to`, in this direction only.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn set_card(&mut self, who: usize, card: &Card) {
        let now = self.now;
        self.with(who, |core| core.set_card(now, card));
    }

    /// Lets `who` reach only members of the same group.
    pub fn set_group(&mut self, who: usize, group: u8) {
        self.members[who].group = group;
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for member in &mut self.members {
            member.group = 0;
        }
    }

    /// Takes members out of everybody's directory. Their cores end, as their sessions do.
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

    /// How `who` sees `whom`; None while `who` does not run.
    pub fn state(&self, who: usize, whom: usize) -> Option<State> {
        let view = self.core(who)?.view(self.now);
        view.get(&self.ids[whom]).map(|liveness| liveness.state)
    }

    /// The members that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|who| self.members[*who].core.is_some())
    }

    /// True when every running member sees exactly the running members.
    pub fn converged(&self) -> bool {
        let others = self.running().count().saturating_sub(1);
        self.members.iter().filter_map(|m| m.core.as_ref()).all(|core| core.seen() == others)
    }

    /// What each member did since the last call.
    pub fn take_tally(&mut self) -> Vec<Tally> {
        self.members.iter_mut().map(|member| std::mem::take(&mut member.tally)).collect()
    }

    /// Lets `span` pass.
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

    /// Lets time pass until `wanted`, looked at every 10 ms; how long that took, or None when
    /// `limit` passed first.
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

    /// Sends what the core wants sent and sees that it wakes in time.
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

/// The cores of members that have all met, made on all processors: each is made by itself.
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
                    core.take_effects(); // they need not introduce themselves
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
