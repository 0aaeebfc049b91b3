//! One run of a schedule: a cluster is born, clients work, faults happen and end, the cluster
//! recovers by itself, everything is read once more, and the history is judged. To which cluster each
//! machine belongs is read from its disk all the while: the clients trust the authorities of one
//! cluster, so of another one they would see nothing but errors.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::access::{Access, Addresses};
use super::clients::Clients;
use super::history::{History, Sighting, Write, judge};
use super::perform::{Performer, Undo, name, new_address};
use super::schedule::{Episode, Schedule, Step};
use super::sightings;
use crate::cluster::{Cluster, Plan};
use crate::lab::Lab;
use crate::moved::Moved;
use crate::wait::until;

/// How long a cluster may take to recover from everything, on a busy machine.
const RECOVERY: Duration = Duration::from_mins(3);

/// How often the disks are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A run in which less than this was acknowledged or read shows nothing.
const LEAST: usize = 10;

/// How much a run tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub acknowledged: usize,
    pub unknown: usize,
    pub reads: usize,
    pub recovery: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, reads, recovery } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {unknown} unknown, {reads} reads, healthy \
             {recovery:.1?} after the last fault"
        )
    }
}

/// Runs a seed. An error tells the schedule, what happened when, where the logs and the history are,
/// and how to see it again.
pub fn run(seed: u64) -> Result<Figures> {
    let schedule = Schedule::of(seed);
    let lab = Lab::new()?;
    let mut story = Story::new();
    let outcome = story.tell(&lab, &schedule);
    outcome.map_err(|error| {
        let kept = lab.keep_logs(&format!("seed-{seed}"));
        let history = serde_json::to_string(&(&schedule, &story.history)).unwrap_or_default();
        std::fs::write(kept.join("history.json"), history).ok();
        error.context(format!(
            "{schedule}\n{}\nlogs and history: {}\nagain: {}",
            story.lines.join("\n"),
            kept.display(),
            again(seed)
        ))
    })
}

/// The command that runs a seed once more.
pub fn again(seed: u64) -> String {
    format!("MUSTER_SEEDS={seed} cargo test --locked --workspace --test group whatever")
}

/// Runs a schedule that follows from no seed; nothing is kept.
pub fn try_out(schedule: &Schedule) -> Result<Figures> {
    Story::new().tell(&Lab::new()?, schedule)
}

/// What happened so far.
struct Story {
    start: Instant,
    lines: Vec<String>,
    history: Option<History>,
    /// What the disks said, each cluster of each machine once.
    sightings: Vec<Sighting>,
}

impl Story {
    fn new() -> Self {
        let (lines, sightings) = (Vec::new(), Vec::new());
        Self { start: Instant::now(), lines, history: None, sightings }
    }

    fn note(&mut self, line: &str) {
        self.lines.push(format!("  {:6.1} s  {line}", self.start.elapsed().as_secs_f64()));
    }

    fn tell(&mut self, lab: &Lab, schedule: &Schedule) -> Result<Figures> {
        let cluster = Cluster::plan(lab, &Plan::of(schedule.nodes).expect(schedule.expect))?;
        let addresses = Addresses::default();
        for (name, node) in &cluster.nodes {
            node.host.set_clock(0)?;
            addresses.set(name, node.host.address());
        }
        let mut performer = Performer { lab, cluster, addresses: addresses.clone() };
        self.be_born(&mut performer, schedule)?;
        self.all_belong(&performer.cluster)?;
        self.recover(&performer.cluster)?;
        let moves = schedule.moved().map(|node| {
            Ok::<_, anyhow::Error>((Moved::before(&performer.cluster, &name(node))?, node))
        });
        let moves = moves.transpose()?;
        let access = Access::of(&performer.cluster, addresses)?;
        let names = performer.cluster.names();
        let clients = Clients::start(&performer.cluster.desk, access, names, self.start);
        for episode in &schedule.episodes {
            let undone = self.episode(&mut performer, episode, clients.leader().as_deref());
            self.history = Some(clients.history());
            undone?;
        }
        let recovery = self.recover(&performer.cluster);
        self.history = Some(clients.history());
        let recovery = recovery?;
        if let Some((moved, node)) = moves {
            moved.is_followed(&performer.cluster, new_address(node), RECOVERY)?;
        }
        until("enough writes and reads to judge", RECOVERY, || {
            sleep(Duration::from_millis(300));
            enough(&clients.history())
        })?;
        let mut history = clients.finish()?;
        self.look(&performer.cluster)?;
        history.sightings.extend(self.sightings.clone());
        let judged = self.judge(&history);
        self.history = Some(history);
        Ok(Figures { recovery, ..judged? })
    }

    fn be_born(&mut self, performer: &mut Performer<'_>, schedule: &Schedule) -> Result<()> {
        let faults = schedule.birth.iter().flat_map(|birth| &birth.faults);
        let mut undos = Vec::new();
        for fault in faults {
            let (undo, hit) = performer.inject(*fault, None)?;
            self.note(&format!("{fault:?} ({hit}), before the birth"));
            undos.push(undo);
        }
        let began = Instant::now();
        for (at_ms, step) in schedule.steps() {
            self.watch(&performer.cluster, began + Duration::from_millis(at_ms))?;
            match step {
                Step::Start(node) => performer.cluster.start(&name(node))?,
                Step::Kill(node) => performer.cluster.kill(&name(node))?,
            }
            self.note(&format!("{step:?}"));
        }
        let hold_ms = schedule.birth.as_ref().map_or(0, |birth| birth.hold_ms);
        self.watch(&performer.cluster, Instant::now() + Duration::from_millis(hold_ms))?;
        undos.into_iter().try_for_each(|undo| performer.undo(undo))
    }

    /// Waits until every machine belongs to the cluster, by its disk, and has a vote.
    fn all_belong(&mut self, cluster: &Cluster) -> Result<()> {
        let names = cluster.names();
        until("every machine to belong to the cluster", RECOVERY, || {
            if let Err(error) = self.look(cluster) {
                return Ok(Err(error)); // not mended by waiting
            }
            let belongs = |name: &&String| self.sightings.iter().any(|s| s.node == **name);
            match names.iter().find(|name| !belongs(name)) {
                Some(name) => Err(format!("{name} does not")),
                None => Ok(Ok(())),
            }
        })??;
        until("every machine to have a vote", RECOVERY, || {
            let members = cluster.members().map_err(|error| format!("{error:#}"))?;
            let list = members["members"].as_array().map_or(&[][..], Vec::as_slice);
            let votes = list.iter().filter(|member| member["raft"]["voter"] == true);
            if votes.count() == names.len() { Ok(()) } else { Err(members.to_string()) }
        })?;
        self.note("every machine belongs to the cluster and has a vote");
        Ok(())
    }

    /// Notes to which clusters the machines belong by their disks; fails once there are two.
    fn look(&mut self, cluster: &Cluster) -> Result<()> {
        let at = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (node, clusters) in cluster.on_disk()? {
            for cluster in clusters {
                let sighting = Sighting { node: node.clone(), cluster: cluster.to_string(), at };
                let same = |s: &Sighting| s.node == sighting.node && s.cluster == sighting.cluster;
                if !self.sightings.iter().any(same) {
                    self.note(&format!("the disk of {node} says that it belongs to {cluster}"));
                    self.sightings.push(sighting);
                }
            }
        }
        match sightings::check(&self.sightings).first() {
            Some(violation) => bail!("clusters: {violation}"),
            None => Ok(()),
        }
    }

    /// Looks again and again until then.
    fn watch(&mut self, cluster: &Cluster, until: Instant) -> Result<()> {
        loop {
            self.look(cluster)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK));
        }
    }

    fn episode(
        &mut self,
        performer: &mut Performer<'_>,
        episode: &Episode,
        leader: Option<&str>,
    ) -> Result<()> {
        let mut undos: Vec<Undo> = Vec::new();
        for fault in &episode.faults {
            let (undo, hit) = performer.inject(*fault, leader)?;
            self.note(&format!("{fault:?} ({hit}; {} leads)", leader.unwrap_or("nobody")));
            undos.push(undo);
        }
        self.watch(&performer.cluster, Instant::now() + Duration::from_millis(episode.hold_ms))?;
        undos.into_iter().rev().try_for_each(|undo| performer.undo(undo))?;
        self.note("undone");
        self.watch(&performer.cluster, Instant::now() + Duration::from_millis(episode.calm_ms))
    }

    /// Waits until nothing is wrong any more; nobody helps.
    fn recover(&mut self, cluster: &Cluster) -> Result<Duration> {
        let began = Instant::now();
        until("`musterctl health` to succeed", RECOVERY, || match cluster.ctl(&["health"]) {
            Ok(said) if said.code == Some(0) => Ok(()),
            Ok(said) => Err(format!("{}{}", said.out, said.err)),
            Err(error) => Err(format!("{error:#}")),
        })?;
        self.note("healthy");
        Ok(began.elapsed())
    }

    fn judge(&mut self, history: &History) -> Result<Figures> {
        let violations = judge(history);
        if let Some((object, first)) = violations.first() {
            self.note(&format!("{} violations", violations.len()));
            bail!("{object}: {first}");
        }
        enough(history).map_err(|few| anyhow!("too little to judge: {few}"))?;
        let writes = [&history.tokens.writes, &history.keys.writes, &history.register.writes];
        let acknowledged = writes.map(|writes| acknowledged(writes)).iter().sum();
        let all: usize = writes.map(Vec::len).iter().sum();
        let sets = history.tokens.reads.len() + history.keys.reads.len();
        Ok(Figures {
            acknowledged,
            unknown: all - acknowledged,
            reads: sets + history.register.reads.len(),
            recovery: Duration::ZERO,
        })
    }
}

fn acknowledged(writes: &[Write]) -> usize {
    writes.iter().filter(|write| write.acknowledged.is_some()).count()
}

/// Whether something was written to and read from every object.
fn enough(history: &History) -> Result<(), String> {
    let History { tokens, keys, register, .. } = history;
    let writes = [&tokens.writes, &keys.writes, &register.writes].map(|w| acknowledged(w));
    let reads = [tokens.reads.len(), keys.reads.len(), register.reads.len()];
    if writes.iter().chain(&reads).all(|count| *count >= LEAST) {
        Ok(())
    } else {
        Err(format!("{writes:?} writes acknowledged, {reads:?} reads"))
    }
}

/// The seeds that the environment asks for (`MUSTER_SEEDS`, `7` or `100..199`), or else `usual`.
pub fn seeds(usual: &[u64]) -> Result<Vec<u64>> {
    let Some(asked) = std::env::var_os("MUSTER_SEEDS") else { return Ok(usual.to_vec()) };
    let asked = asked.into_string().ok().context("MUSTER_SEEDS is no text")?;
    let number = |text: &str| {
        text.parse::<u64>().with_context(|| format!("MUSTER_SEEDS={asked}: `SEED` or `FROM..TO`"))
    };
    match asked.split_once("..") {
        Some((from, to)) => Ok((number(from)?..=number(to)?).collect()),
        None => Ok(vec![number(&asked)?]),
    }
}
