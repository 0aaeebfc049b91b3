//! Power cuts of the store. After a cut at any point, every acknowledged vote, entry, purge and
//! snapshot is there, and nothing that was never written.
//!
//! `MUSTER_CUTS=5000 cargo test --workspace --test disk power_cut_store` makes that many cuts per
//! store. `MUSTER_NAMES=any` models a file system that keeps no order among names.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_storage::Engine;
use muster_tests::exclusive::MachineLock;
use muster_tests::power_cut::{Disk, Event, Mutation, Trace, scratch};
use muster_tests::store::engines::{FLUSH_ONLY, MUSTER, REDB};
use muster_tests::store::script::{OPS_PER_PROCESS, Op, StoreContents, script};
use muster_tests::store::{Node, raft};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Operations begun and acknowledged at some point, as numbers of operations.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    log: usize,
    snapshots: usize,
    begun: usize,
}

impl Known {
    fn on_line(&mut self, line: &str, ops: &[Op]) {
        if let Some(number) = line.strip_prefix("has ").and_then(|n| n.parse().ok()) {
            // openraft acts on what it finds at its start, so that must last from then on.
            *self = Self { log: number, snapshots: number, begun: number };
        } else if let Some(number) =
            line.strip_prefix("doing ").and_then(|n| n.parse::<usize>().ok())
        {
            self.begun = number + 1;
        } else if let Some(number) = line.strip_prefix("did ").and_then(|n| n.parse::<usize>().ok())
        {
            match ops[number] {
                // It was applied, so its own disk has it and everything before.
                Op::Commit { to } => self.log = self.log.max(appended(&ops[..number], to) + 1),
                ref op if op.acknowledges_snapshot() => self.snapshots = number + 1,
                ref op if op.acknowledges_log() => self.log = number + 1,
                _ => {}
            }
        }
    }
}

/// Returns the number of the last operation that wrote the entry at `index`.
fn appended(ops: &[Op], index: u64) -> usize {
    let brings = |op: &Op| match op {
        Op::Append { first, count, .. } => (*first..first + count).contains(&index),
        Op::Install { to } => *to >= index,
        _ => false,
    };
    ops.iter().rposition(brings).expect("what is committed was appended or installed")
}

/// One recorded victim, and its expected contents after each operation.
struct Run {
    engine: Engine,
    seed: u64,
    ops: Vec<Op>,
    trace: Trace,
    /// Contents after the first n operations.
    contents: Vec<StoreContents>,
    _shared: MachineLock,
}

impl Run {
    fn record(engine: Engine, seed: u64, length: usize) -> Result<Self> {
        let shared = MachineLock::shared()?;
        let dir = scratch()?;
        let mut trace = Trace::default();
        for from in (0..length).step_by(OPS_PER_PROCESS) {
            trace.record(
                dir.path(),
                &mut victim(dir.path(), engine, seed, (from, from + OPS_PER_PROCESS)),
            )?;
        }
        let ops = script(seed, length);
        let mut contents = vec![StoreContents::default()];
        for op in &ops {
            let mut next = contents[contents.len() - 1].clone();
            next.perform(op);
            contents.push(next);
        }
        let mut disk = Disk::default();
        for event in &trace.events {
            disk.play(event)?;
        }
        disk.compare(dir.path()).context("the fault model misread the victim")?;
        Ok(Self { engine, seed, ops, trace, contents, _shared: shared })
    }

    /// Cuts the power `cuts` times, at any event. After some of the cuts the node continues and is
    /// cut again, possibly in its recovery.
    async fn check_run(&self, cuts: usize, summary: &mut Summary) -> Result<()> {
        let first = Branch {
            disk: new_disk(),
            trace: self.trace.clone(),
            known: Known::default(),
            label: format!("{} seed {}", self.engine.name, self.seed),
            cuts,
            generation: 0,
        };
        let mut branches = vec![first];
        while let Some(branch) = branches.pop() {
            summary.recordings += 1;
            branches.extend(self.check_branch(branch, summary).await?);
        }
        Ok(())
    }

    /// Cuts the power at the points where this mutation must show.
    async fn check_mutation(&self, mutation: Mutation, summary: &mut Summary) -> Result<()> {
        let is_acknowledgement = |line: &str| {
            let number = line.strip_prefix("did ").and_then(|n| n.parse::<usize>().ok());
            number.is_some_and(|n| {
                self.ops[n].acknowledges_log() || self.ops[n].acknowledges_snapshot()
            })
        };
        let trace = self.trace.mutated(mutation, is_acknowledgement);
        let points = trace.cut_points(mutation, is_acknowledgement);
        let cuts_per_point = (160 / points.len().max(1)).max(1) as u64;
        let mut points = points.into_iter().peekable();
        let (mut disk, mut known) = (Disk::default(), Known::default());
        for (at, event) in trace.events.iter().enumerate() {
            while points.next_if_eq(&at).is_some() {
                for fate in 0..cuts_per_point {
                    summary.cuts += 1;
                    if let Err(error) = self.cut(&disk, known, (at as u64) << 16 | fate).await {
                        summary.failures.push(format!("event {at}, fate {fate}: {error:#}"));
                    }
                }
            }
            disk.play(event)?;
            if let Event::Line(line) = event {
                known.on_line(line, &self.ops);
            }
        }
        Ok(())
    }

    /// Cuts at points of one branch. Returns the recordings of nodes that continued after some of
    /// the cuts.
    async fn check_branch(&self, branch: Branch, summary: &mut Summary) -> Result<Vec<Branch>> {
        let Branch { mut disk, trace, mut known, label, cuts, generation } = branch;
        let mut rng = StdRng::seed_from_u64(self.seed << 8 | generation);
        let mut wanted: Vec<_> =
            (0..cuts).map(|_| rng.random_range(0..=trace.events.len())).collect();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut successors = Vec::new();
        for at in 0..=trace.events.len() {
            while wanted.next_if_eq(&at).is_some() {
                let fate = rng.random();
                let cut_label = format!("{label}, event {at}, fate {fate}");
                summary.cuts += 1;
                match self.cut(&disk, known, fate).await {
                    Err(error) => summary.failures.push(format!("{cut_label}: {error:#}")),
                    Ok(None) => summary.mixed += 1,
                    Ok(Some(contents)) if generation < 2 && rng.random_ratio(1, 25) => {
                        let dir = scratch()?;
                        disk.cut(dir.path(), &mut StdRng::seed_from_u64(fate))?;
                        let branch = Branch {
                            disk: Disk::load(dir.path())?,
                            trace: self.record_successor(dir.path(), contents)?,
                            known: Known { log: contents, snapshots: contents, begun: contents },
                            label: format!("{cut_label}, cut"),
                            cuts: 5,
                            generation: generation + 1,
                        };
                        successors.push(branch);
                    }
                    Ok(_) => {}
                }
                if generation < 2 && rng.random_ratio(1, 50) {
                    successors.extend(self.kill(&disk, known, (cut_label, generation)).await?);
                }
            }
            if let Some(event) = trace.events.get(at) {
                disk.play(event)?;
                if let Event::Line(line) = event {
                    known.on_line(line, &self.ops);
                }
            }
        }
        Ok(successors)
    }

    /// Checks one cut. Returns the number of operations that the store is after, if log and
    /// snapshots are after the same one. Starts openraft from one in ten, and from every store
    /// whose log and snapshots differ.
    async fn cut(&self, disk: &Disk, known: Known, fate: u64) -> Result<Option<usize>> {
        let dir = scratch()?;
        disk.cut(dir.path(), &mut StdRng::seed_from_u64(fate))?;
        let (contents, found) = self.check(dir.path(), known).await?;
        // Opening may have repaired it. It must open again with the same contents.
        ensure!(
            self.check(dir.path(), known).await.context("the second time")?
                == (contents, found.clone()),
            "the second time the contents differ"
        );
        if fate.is_multiple_of(10) || contents.is_none() {
            let node = Node::open(dir.path(), self.engine)?;
            raft::check_start(node, &found).await?;
        }
        Ok(contents)
    }

    /// Kills the node while the power stays on. Its successor finds the page cache, and what it
    /// acts on must last from then on. `None` if the killed node was between its files.
    async fn kill(
        &self,
        disk: &Disk,
        known: Known,
        (label, generation): (String, u64),
    ) -> Result<Option<Branch>> {
        let mut disk = disk.clone();
        let (seen, dir) = (scratch()?, scratch()?);
        disk.write_live(seen.path())?;
        disk.write_live(dir.path())?;
        let (contents, _) =
            self.check(seen.path(), known).await.with_context(|| format!("{label}, killed"))?;
        let Some(contents) = contents else { return Ok(None) };
        let trace = self.record_successor(dir.path(), contents)?;
        let label = format!("{label}, killed");
        Ok(Some(Branch { disk, trace, known, label, cuts: 5, generation: generation + 1 }))
    }

    /// Records a node that starts on `dir`, continues after `contents` operations, and dies.
    fn record_successor(&self, dir: &Path, contents: usize) -> Result<Trace> {
        let mut trace = Trace::default();
        let end = (contents + OPS_PER_PROCESS / 4).min(self.ops.len());
        trace.record(dir, &mut victim(dir, self.engine, self.seed, (contents, end)))?;
        Ok(trace)
    }

    /// Returns the store's contents, and the operation after which they are expected.
    async fn check(&self, dir: &Path, known: Known) -> Result<(Option<usize>, StoreContents)> {
        let mut node = Node::open(dir, self.engine)?;
        let found = node.read().await?;
        let logs = known.log..=known.begun;
        ensure!(
            logs.clone().any(|n| same_log(&self.contents[n], &found)),
            "{}",
            explain(&self.contents[logs], &found, known)
        );
        let snapshots = known.snapshots..=known.begun;
        ensure!(
            snapshots.clone().any(|n| same_snapshot(&self.contents[n], &found)),
            "operations {snapshots:?} do not allow the snapshot {:?}",
            found.snapshot
        );
        let after = logs.rev().find(|n| {
            same_log(&self.contents[*n], &found) && same_snapshot(&self.contents[*n], &found)
        });
        Ok((after, found))
    }
}

/// A directory, the events that follow, and the number of cuts.
struct Branch {
    disk: Disk,
    trace: Trace,
    known: Known,
    label: String,
    cuts: usize,
    generation: u64,
}

fn same_snapshot(contents: &StoreContents, found: &StoreContents) -> bool {
    contents.snapshot == found.snapshot
        && found.history.iter().all(|(index, term)| contents.history.get(index) == Some(term))
}

fn same_log(contents: &StoreContents, found: &StoreContents) -> bool {
    (contents.vote, contents.purged, contents.committed, &contents.log)
        == (found.vote, found.purged, found.committed, &found.log)
}

fn explain(possible: &[StoreContents], found: &StoreContents, known: Known) -> String {
    let line = |contents: &StoreContents| {
        let ends = (contents.log.first_key_value(), contents.log.last_key_value());
        format!(
            "vote {:?}, purged {:?}, committed {:?}, log {ends:?}",
            contents.vote, contents.purged, contents.committed
        )
    };
    let mut text = format!(
        "acknowledged {}, begun {}; found {}; allowed",
        known.log,
        known.begun,
        line(found)
    );
    for contents in possible {
        write!(text, " [{}]", line(contents)).expect("writing to a string cannot fail");
    }
    text
}

fn victim(dir: &Path, engine: Engine, seed: u64, ops: (usize, usize)) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_power-cut-victim"));
    command.arg(dir).arg(engine.name);
    command.args([seed.to_string(), ops.0.to_string(), ops.1.to_string()]);
    command
}

/// Makes a disk.
fn new_disk() -> Disk {
    let keeps_order = std::env::var_os("MUSTER_NAMES").is_none_or(|begun| begun != "any");
    if keeps_order { Disk::default() } else { Disk::default().with_names_in_any_order() }
}

/// Returns the number of cuts: a few, or as many as a soak requests.
fn cuts(default: usize) -> usize {
    std::env::var("MUSTER_CUTS").map_or(default, |n| n.parse().expect("MUSTER_CUTS is a number"))
}

/// Counts and failures of a check.
struct Summary {
    engine: Engine,
    cuts: usize,
    /// Number of recordings with cuts: of whole runs, and of nodes that continued after a cut.
    recordings: usize,
    /// Number of cuts after which log and snapshots are after different operations.
    mixed: usize,
    failures: Vec<String>,
}

impl Summary {
    fn empty(engine: Engine) -> Self {
        Self { engine, cuts: 0, recordings: 0, mixed: 0, failures: Vec::new() }
    }

    /// Makes at least `cuts` cuts in runs of `per_run`.
    async fn of(engine: Engine, cuts: usize, per_run: usize) -> Result<Self> {
        let mut summary = Self::empty(engine);
        for seed in 0..cuts.div_ceil(per_run) as u64 {
            // A long run lets an engine clean up and reuse its files.
            let recordings = if seed % 4 == 3 { 12 } else { 3 };
            let run = Run::record(engine, seed, recordings * OPS_PER_PROCESS)
                .with_context(|| format!("record seed {seed}; so far {summary}"))?;
            if let Err(error) = run.check_run(per_run, &mut summary).await {
                return Err(error.context(format!("check seed {seed}; so far {summary}")));
            }
        }
        writeln!(std::io::stderr(), "{summary}")?;
        Ok(summary)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, cuts, recordings, mixed, failures } = self;
        let (name, failed) = (engine.name, failures.len());
        write!(
            f,
            "{name}: {failed} of {cuts} cuts in {recordings} recordings failed, {mixed} between files"
        )?;
        for failure in failures.iter().take(5) {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_cut_loses_what_musters_store_acknowledged() -> Result<()> {
    let summary = Summary::of(MUSTER, cuts(150), 50).await?;
    ensure!(summary.failures.is_empty(), "{summary}");
    Ok(())
}

#[tokio::test]
async fn a_store_whose_creation_was_interrupted_loses_nothing_later() -> Result<()> {
    let run = Run::record(MUSTER, 1, OPS_PER_PROCESS)?;
    let mut summary = Summary::empty(MUSTER);
    let mut disk = Disk::default();
    for (at, event) in run.trace.events.iter().enumerate() {
        if *event == Event::Line("did 0".to_owned()) {
            break;
        }
        let label = (format!("event {at}"), 1);
        // Half of the points, except in a soak.
        let begun = Known { begun: 1, ..Known::default() };
        if (cuts(0) > 0 || at % 2 == 0)
            && let Some(branch) = run.kill(&disk, begun, label).await?
        {
            run.check_branch(branch, &mut summary).await?;
        }
        disk.play(event)?;
    }
    ensure!(summary.failures.is_empty(), "{summary}");
    ensure!(summary.cuts > 80, "only {} cuts", summary.cuts);
    Ok(())
}

#[tokio::test]
async fn a_store_that_does_not_sync_is_caught() -> Result<()> {
    let summary = Summary::of(FLUSH_ONLY, 50, 50).await?;
    ensure!(summary.failures.len() > summary.cuts / 10, "{summary}");
    Ok(())
}

#[tokio::test]
async fn every_part_of_the_discipline_that_is_left_out_is_caught() -> Result<()> {
    let run = Run::record(MUSTER, 3, OPS_PER_PROCESS)?;
    for mutation in Mutation::ALL {
        let mut summary = Summary::empty(MUSTER);
        run.check_mutation(mutation, &mut summary).await?;
        writeln!(
            std::io::stderr(),
            "{mutation:?}: {} of {} cuts failed",
            summary.failures.len(),
            summary.cuts
        )?;
        ensure!(summary.failures.len() > 2, "{mutation:?} is not noticed: {summary}");
    }
    Ok(())
}

#[tokio::test]
async fn redb_loses_nothing_either() -> Result<()> {
    let summary = Summary::of(REDB, cuts(50), 50).await?;
    ensure!(summary.failures.is_empty(), "{summary}");
    Ok(())
}

#[test]
fn every_acknowledgement_waits_for_a_sync_of_the_data() -> Result<()> {
    let run = Run::record(MUSTER, 2, OPS_PER_PROCESS)?;
    let mut synced = false;
    let mut acknowledged = 0;
    for event in &run.trace.events {
        match event {
            Event::Line(line) if !line.starts_with("did ") => synced = false,
            Event::Line(line) => {
                let number: usize = line.strip_prefix("did ").context("an odd line")?.parse()?;
                if run.ops[number].acknowledges_log() {
                    ensure!(synced, "operation {number} was acknowledged without a sync");
                    acknowledged += 1;
                }
            }
            Event::Sync { path, .. } => synced |= path == Path::new("raft/data/db"),
            _ => {}
        }
    }
    ensure!(acknowledged > OPS_PER_PROCESS / 2, "only {acknowledged} acknowledgements");
    Ok(())
}
