//! One run of a schedule: a cluster is born, clients work, faults happen and end, the cluster
//! recovers by itself, everything is read once more, and the history is judged.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::access::{Access, Addresses};
use super::clients::Clients;
use super::history::{History, Write, judge};
use super::perform::{Performer, Undo, name};
use super::schedule::{Episode, Schedule};
use crate::cluster::{Cluster, Plan};
use crate::lab::Lab;
use crate::wait::until;

/// How long a cluster may take to recover from everything, on a busy machine.
const RECOVERY: Duration = Duration::from_mins(3);

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
    let mut story = Story { start: Instant::now(), lines: Vec::new(), history: None };
    let outcome = story.tell(&lab, &schedule);
    outcome.map_err(|error| {
        let kept = lab.keep_logs(&format!("seed-{seed}"));
        let history = serde_json::to_string(&(&schedule, &story.history)).unwrap_or_default();
        std::fs::write(kept.join("history.json"), history).ok();
        error.context(format!(
            "{schedule}\n{}\nlogs and history: {}\nagain: MUSTER_SEEDS={seed} cargo test --locked -p \
             muster-tests --test schedules -- --nocapture",
            story.lines.join("\n"),
            kept.display()
        ))
    })
}

/// What happened so far.
struct Story {
    start: Instant,
    lines: Vec<String>,
    history: Option<History>,
}

impl Story {
    fn note(&mut self, line: &str) {
        self.lines.push(format!("  {:6.1} s  {line}", self.start.elapsed().as_secs_f64()));
    }

    fn tell(&mut self, lab: &Lab, schedule: &Schedule) -> Result<Figures> {
        let cluster = Cluster::plan(lab, &Plan::of(schedule.nodes))?;
        let addresses = Addresses::default();
        for (name, node) in &cluster.nodes {
            node.host.set_clock(0)?;
            addresses.set(name, node.host.address());
        }
        let mut performer = Performer { lab, cluster, addresses: addresses.clone() };
        self.be_born(&mut performer, schedule)?;
        self.recover(&performer.cluster)?;
        let access = Access::of(&performer.cluster, addresses)?;
        let names = performer.cluster.names();
        let clients = Clients::start(&performer.cluster.desk, access, names);
        for episode in &schedule.episodes {
            let undone = self.episode(&mut performer, episode, clients.leader().as_deref());
            self.history = Some(clients.history());
            undone?;
        }
        let recovery = self.recover(&performer.cluster);
        self.history = Some(clients.history());
        let recovery = recovery?;
        until("enough writes and reads to judge", RECOVERY, || {
            sleep(Duration::from_millis(300));
            enough(&clients.history())
        })?;
        let history = clients.finish()?;
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
        for (node, after_ms) in &schedule.starts {
            sleep(Duration::from_millis(*after_ms));
            performer.cluster.start(&name(*node))?;
        }
        self.note("all started");
        sleep(Duration::from_millis(schedule.birth.as_ref().map_or(0, |birth| birth.hold_ms)));
        undos.into_iter().try_for_each(|undo| performer.undo(undo))
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
        sleep(Duration::from_millis(episode.hold_ms));
        undos.into_iter().rev().try_for_each(|undo| performer.undo(undo))?;
        self.note("undone");
        sleep(Duration::from_millis(episode.calm_ms));
        Ok(())
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
