//! One run of a schedule: the cluster forms, clients work, faults begin and end, the cluster
//! recovers by itself, everything is read once more, and the history is checked. Each machine's
//! cluster id is read from its disk throughout: clients trust the authorities of one cluster and
//! would see only errors from another.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::access::{Access, Addresses};
use super::clients::Clients;
use super::history::{ClusterIdReport, History, Write};
use super::inject::{FaultInjector, Undo, name, new_address};
use super::invariants::{self, one_cluster};
use super::schedule::{Episode, Schedule, Step};
use crate::address_change::AddressChange;
use crate::cluster::{Cluster, Plan};
use crate::lab::Lab;
use crate::wait::until;

/// Timeout of a full recovery on a busy machine.
const RECOVERY: Duration = Duration::from_mins(3);

/// Interval between two reads of the disks.
const DISK_POLL: Duration = Duration::from_millis(200);

/// A run with fewer acknowledged writes or reads than this proves nothing.
const MIN_OPERATIONS: usize = 10;

/// Amount of work in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Coverage {
    pub acknowledged: usize,
    pub unknown: usize,
    pub reads: usize,
    pub recovery: Duration,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, reads, recovery } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {unknown} unknown, {reads} reads, healthy \
             {recovery:.1?} after the last fault"
        )
    }
}

/// Runs a seed. An error holds the schedule, the times of all events, the paths of logs and
/// history, and the command that repeats the run.
pub fn run_seed(seed: u64) -> Result<Coverage> {
    let schedule = Schedule::of(seed);
    let lab = Lab::new()?;
    let mut run = Run::new();
    let outcome = run.execute(&lab, &schedule);
    outcome.map_err(|error| {
        let kept = lab.save_logs(&format!("seed-{seed}"));
        let history = serde_json::to_string(&(&schedule, &run.history)).unwrap_or_default();
        std::fs::write(kept.join("history.json"), history).ok();
        error.context(format!(
            "{schedule}\n{}\nlogs and history: {}\nagain: {}",
            run.lines.join("\n"),
            kept.display(),
            repeat_command(seed)
        ))
    })
}

/// Returns the command that repeats a seed.
pub fn repeat_command(seed: u64) -> String {
    format!("MUSTER_SEEDS={seed} cargo test --locked --workspace --test group schedules::")
}

/// Runs a schedule that no seed gives. Saves nothing.
pub fn run_schedule(schedule: &Schedule) -> Result<Coverage> {
    Run::new().execute(&Lab::new()?, schedule)
}

/// State of one run.
struct Run {
    start: Instant,
    lines: Vec<String>,
    history: Option<History>,
    /// Cluster ids on the disks, each id of each machine once.
    cluster_ids: Vec<ClusterIdReport>,
}

impl Run {
    fn new() -> Self {
        let (lines, cluster_ids) = (Vec::new(), Vec::new());
        Self { start: Instant::now(), lines, history: None, cluster_ids }
    }

    fn note(&mut self, line: &str) {
        self.lines.push(format!("  {:6.1} s  {line}", self.start.elapsed().as_secs_f64()));
    }

    fn execute(&mut self, lab: &Lab, schedule: &Schedule) -> Result<Coverage> {
        let cluster = Cluster::plan(lab, &Plan::of(schedule.nodes).expect(schedule.expect))?;
        let addresses = Addresses::default();
        for (name, node) in &cluster.nodes {
            node.host.set_clock(0)?;
            addresses.set(name, node.host.address());
        }
        let mut injector = FaultInjector { lab, cluster, addresses: addresses.clone() };
        self.form(&mut injector, schedule)?;
        self.await_members(&injector.cluster)?;
        self.await_health(&injector.cluster)?;
        let changes = schedule.address_change().map(|node| {
            Ok::<_, anyhow::Error>((AddressChange::before(&injector.cluster, &name(node))?, node))
        });
        let change = changes.transpose()?;
        let access = Access::of(&injector.cluster, addresses)?;
        let names = injector.cluster.names();
        let clients = Clients::start(&injector.cluster.operator, access, names, self.start);
        for episode in &schedule.episodes {
            let outcome = self.episode(&mut injector, episode, clients.leader().as_deref());
            self.history = Some(clients.history());
            outcome?;
        }
        let recovery = self.await_health(&injector.cluster);
        self.history = Some(clients.history());
        let recovery = recovery?;
        if let Some((change, node)) = change {
            change.assert_followed(&injector.cluster, new_address(node), RECOVERY)?;
        }
        until("enough writes and reads to check", RECOVERY, || {
            sleep(Duration::from_millis(300));
            has_enough(&clients.history())
        })?;
        let mut history = clients.finish()?;
        self.observe_disks(&injector.cluster)?;
        history.cluster_ids.extend(self.cluster_ids.clone());
        let checked = self.check(&history);
        self.history = Some(history);
        Ok(Coverage { recovery, ..checked? })
    }

    fn form(&mut self, injector: &mut FaultInjector<'_>, schedule: &Schedule) -> Result<()> {
        let faults = schedule.birth.iter().flat_map(|birth| &birth.faults);
        let mut undos = Vec::new();
        for fault in faults {
            let (undo, hit) = injector.inject(*fault, None)?;
            self.note(&format!("{fault:?} ({hit}), before the birth"));
            undos.push(undo);
        }
        let began = Instant::now();
        for (at_ms, step) in schedule.steps() {
            self.observe_until(&injector.cluster, began + Duration::from_millis(at_ms))?;
            match step {
                Step::Start(node) => injector.cluster.start(&name(node))?,
                Step::Kill(node) => injector.cluster.kill(&name(node))?,
            }
            self.note(&format!("{step:?}"));
        }
        let hold_ms = schedule.birth.as_ref().map_or(0, |birth| birth.hold_ms);
        self.observe_until(&injector.cluster, Instant::now() + Duration::from_millis(hold_ms))?;
        undos.into_iter().try_for_each(|undo| injector.undo(undo))
    }

    /// Waits until every machine belongs to the cluster, by its disk, and has a vote.
    fn await_members(&mut self, cluster: &Cluster) -> Result<()> {
        let names = cluster.names();
        until("every machine to belong to the cluster", RECOVERY, || {
            if let Err(error) = self.observe_disks(cluster) {
                return Ok(Err(error)); // waiting does not help
            }
            let belongs = |name: &&String| self.cluster_ids.iter().any(|s| s.node == **name);
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

    /// Records the cluster ids on all disks. Fails once there are two.
    fn observe_disks(&mut self, cluster: &Cluster) -> Result<()> {
        let at = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (node, clusters) in cluster.cluster_ids_on_disk()? {
            for cluster in clusters {
                let report =
                    ClusterIdReport { node: node.clone(), cluster: cluster.to_string(), at };
                let same =
                    |s: &ClusterIdReport| s.node == report.node && s.cluster == report.cluster;
                if !self.cluster_ids.iter().any(same) {
                    self.note(&format!("the disk of {node} holds the cluster id {cluster}"));
                    self.cluster_ids.push(report);
                }
            }
        }
        match one_cluster::check(&self.cluster_ids).first() {
            Some(violation) => bail!("clusters: {violation}"),
            None => Ok(()),
        }
    }

    /// Observes the disks repeatedly until then.
    fn observe_until(&mut self, cluster: &Cluster, until: Instant) -> Result<()> {
        loop {
            self.observe_disks(cluster)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(DISK_POLL));
        }
    }

    fn episode(
        &mut self,
        injector: &mut FaultInjector<'_>,
        episode: &Episode,
        leader: Option<&str>,
    ) -> Result<()> {
        let mut undos: Vec<Undo> = Vec::new();
        for fault in &episode.faults {
            let (undo, hit) = injector.inject(*fault, leader)?;
            self.note(&format!("{fault:?} ({hit}; leader: {})", leader.unwrap_or("none")));
            undos.push(undo);
        }
        self.observe_until(
            &injector.cluster,
            Instant::now() + Duration::from_millis(episode.hold_ms),
        )?;
        undos.into_iter().rev().try_for_each(|undo| injector.undo(undo))?;
        self.note("undone");
        self.observe_until(
            &injector.cluster,
            Instant::now() + Duration::from_millis(episode.pause_ms),
        )
    }

    /// Waits until the cluster is healthy, without intervention.
    fn await_health(&mut self, cluster: &Cluster) -> Result<Duration> {
        let began = Instant::now();
        until("`musterctl health` to succeed", RECOVERY, || match cluster.ctl(&["health"]) {
            Ok(said) if said.code == Some(0) => Ok(()),
            Ok(said) => Err(format!("{}{}", said.out, said.err)),
            Err(error) => Err(format!("{error:#}")),
        })?;
        self.note("healthy");
        Ok(began.elapsed())
    }

    fn check(&mut self, history: &History) -> Result<Coverage> {
        let violations = invariants::check(history);
        if let Some((object, first)) = violations.first() {
            self.note(&format!("{} violations", violations.len()));
            bail!("{object}: {first}");
        }
        has_enough(history).map_err(|few| anyhow!("too few operations to check: {few}"))?;
        let writes = [&history.tokens.writes, &history.keys.writes, &history.register.writes];
        let acknowledged = writes.map(|writes| acknowledged(writes)).iter().sum();
        let all: usize = writes.map(Vec::len).iter().sum();
        let sets = history.tokens.reads.len() + history.keys.reads.len();
        Ok(Coverage {
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

/// Checks that every object has enough acknowledged writes and reads.
fn has_enough(history: &History) -> Result<(), String> {
    let History { tokens, keys, register, .. } = history;
    let writes = [&tokens.writes, &keys.writes, &register.writes].map(|w| acknowledged(w));
    let reads = [tokens.reads.len(), keys.reads.len(), register.reads.len()];
    if writes.iter().chain(&reads).all(|count| *count >= MIN_OPERATIONS) {
        Ok(())
    } else {
        Err(format!("{writes:?} writes acknowledged, {reads:?} reads"))
    }
}

/// Returns the seeds in `MUSTER_SEEDS` (`7` or `100..199`), or else `default`.
pub fn seeds_from_env(default: &[u64]) -> Result<Vec<u64>> {
    let Some(asked) = std::env::var_os("MUSTER_SEEDS") else { return Ok(default.to_vec()) };
    let asked = asked.into_string().ok().context("MUSTER_SEEDS is not text")?;
    let number = |text: &str| {
        text.parse::<u64>().with_context(|| format!("MUSTER_SEEDS={asked}: `SEED` or `FROM..TO`"))
    };
    match asked.split_once("..") {
        Some((from, to)) => Ok((number(from)?..=number(to)?).collect()),
        None => Ok(vec![number(&asked)?]),
    }
}
