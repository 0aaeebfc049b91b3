//! The judgement of the store: after a power cut at any point, every acknowledged vote, entry,
//! purge and snapshot is there, and nothing that was never asked for.
//!
//! `MUSTER_CUTS=5000 cargo test --workspace --test disk power_cut_store` makes that many cuts per store; with
//! `MUSTER_NAMES=any`, on a file system that keeps no order among names.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_storage::Engine;
use muster_tests::power_cut::{Careless, Disk, Event, Tape, scratch};
use muster_tests::store::engines::{FLUSH_ONLY, MUSTER, REDB};
use muster_tests::store::script::{Held, LIFE, Op, script};
use muster_tests::store::{Node, raft};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What was asked and acknowledged at some point, as numbers of operations.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    log: usize,
    snapshots: usize,
    asked: usize,
}

impl Known {
    fn hear(&mut self, line: &str, ops: &[Op]) {
        if let Some(number) = line.strip_prefix("has ").and_then(|n| n.parse().ok()) {
            // openraft acts on what it finds at its start, so that must last from then on.
            *self = Self { log: number, snapshots: number, asked: number };
        } else if let Some(number) =
            line.strip_prefix("doing ").and_then(|n| n.parse::<usize>().ok())
        {
            self.asked = number + 1;
        } else if let Some(number) = line.strip_prefix("did ").and_then(|n| n.parse::<usize>().ok())
        {
            match ops[number] {
                // It was applied, so its own disk has it, and all before it.
                Op::Commit { to } => self.log = self.log.max(appended(&ops[..number], to) + 1),
                ref op if op.is_promise_of_snapshot() => self.snapshots = number + 1,
                ref op if op.is_promise_of_log() => self.log = number + 1,
                _ => {}
            }
        }
    }
}

/// The number of the operation that last brought the entry at `index`.
fn appended(ops: &[Op], index: u64) -> usize {
    let brings = |op: &Op| match op {
        Op::Append { first, count, .. } => (*first..first + count).contains(&index),
        Op::Install { to } => *to >= index,
        _ => false,
    };
    ops.iter().rposition(brings).expect("what is committed was appended or installed")
}

/// One run of a victim, and what it should hold after each operation.
struct Run {
    engine: Engine,
    seed: u64,
    ops: Vec<Op>,
    tape: Tape,
    /// What is held after the first n operations.
    held: Vec<Held>,
}

impl Run {
    fn record(engine: Engine, seed: u64, length: usize) -> Result<Self> {
        let dir = scratch()?;
        let mut tape = Tape::default();
        for from in (0..length).step_by(LIFE) {
            tape.record(dir.path(), &mut victim(dir.path(), engine, seed, (from, from + LIFE)))?;
        }
        let ops = script(seed, length);
        let mut held = vec![Held::default()];
        for op in &ops {
            let mut next = held[held.len() - 1].clone();
            next.perform(op);
            held.push(next);
        }
        let mut disk = Disk::default();
        for event in &tape.events {
            disk.play(event)?;
        }
        disk.compare(dir.path()).context("the fault model misread the victim")?;
        Ok(Self { engine, seed, ops, tape, held })
    }

    /// Cuts the power `cuts` times, at any event. After some of the
    /// cuts the node lives on and is cut again, which also cuts its recovery short.
    async fn judge(&self, cuts: usize, verdict: &mut Verdict) -> Result<()> {
        let first = Past {
            disk: empty(),
            tape: self.tape.clone(),
            known: Known::default(),
            story: format!("{} seed {}", self.engine.name, self.seed),
            cuts,
            generation: 0,
        };
        let mut pasts = vec![first];
        while let Some(past) = pasts.pop() {
            verdict.lives += 1;
            pasts.extend(self.judge_past(past, verdict).await?);
        }
        Ok(())
    }

    /// Cuts the power at the points where carelessness of this kind must show.
    async fn judge_careless(&self, how: Careless, verdict: &mut Verdict) -> Result<()> {
        let is_promise = |line: &str| {
            let number = line.strip_prefix("did ").and_then(|n| n.parse::<usize>().ok());
            number.is_some_and(|n| {
                self.ops[n].is_promise_of_log() || self.ops[n].is_promise_of_snapshot()
            })
        };
        let tape = self.tape.of_careless(how, is_promise);
        let points = tape.weak_points(how, is_promise);
        let fates = (160 / points.len().max(1)).max(1) as u64;
        let mut points = points.into_iter().peekable();
        let (mut disk, mut known) = (Disk::default(), Known::default());
        for (at, event) in tape.events.iter().enumerate() {
            while points.next_if_eq(&at).is_some() {
                for fate in 0..fates {
                    verdict.cuts += 1;
                    if let Err(error) = self.cut(&disk, known, (at as u64) << 16 | fate).await {
                        verdict.failures.push(format!("event {at}, fate {fate}: {error:#}"));
                    }
                }
            }
            disk.play(event)?;
            if let Event::Said(line) = event {
                known.hear(line, &self.ops);
            }
        }
        Ok(())
    }

    /// Cuts at points of one past; returns what the node lived on to after some of the cuts.
    async fn judge_past(&self, past: Past, verdict: &mut Verdict) -> Result<Vec<Past>> {
        let Past { mut disk, tape, mut known, story, cuts, generation } = past;
        let mut chance = StdRng::seed_from_u64(self.seed << 8 | generation);
        let mut wanted: Vec<_> =
            (0..cuts).map(|_| chance.random_range(0..=tape.events.len())).collect();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut later = Vec::new();
        for at in 0..=tape.events.len() {
            while wanted.next_if_eq(&at).is_some() {
                let fate = chance.random();
                let now = format!("{story}, event {at}, fate {fate}");
                verdict.cuts += 1;
                match self.cut(&disk, known, fate).await {
                    Err(error) => verdict.failures.push(format!("{now}: {error:#}")),
                    Ok(None) => verdict.between += 1,
                    Ok(Some(held)) if generation < 2 && chance.random_ratio(1, 25) => {
                        let dir = scratch()?;
                        disk.cut(dir.path(), &mut StdRng::seed_from_u64(fate))?;
                        let past = Past {
                            disk: Disk::load(dir.path())?,
                            tape: self.live_on(dir.path(), held)?,
                            known: Known { log: held, snapshots: held, asked: held },
                            story: format!("{now}, cut"),
                            cuts: 5,
                            generation: generation + 1,
                        };
                        later.push(past);
                    }
                    Ok(_) => {}
                }
                if generation < 2 && chance.random_ratio(1, 50) {
                    later.extend(self.kill(&disk, known, (now, generation)).await?);
                }
            }
            if let Some(event) = tape.events.get(at) {
                disk.play(event)?;
                if let Event::Said(line) = event {
                    known.hear(line, &self.ops);
                }
            }
        }
        Ok(later)
    }

    /// Judges one cut; returns the number of operations that the store is now after, if log and
    /// snapshots are after the same. openraft is started from every tenth, and always from others.
    async fn cut(&self, disk: &Disk, known: Known, fate: u64) -> Result<Option<usize>> {
        let dir = scratch()?;
        disk.cut(dir.path(), &mut StdRng::seed_from_u64(fate))?;
        let (held, found) = self.check(dir.path(), known).await?;
        // It was opened and so perhaps repaired; it must open again, with the same contents.
        ensure!(
            self.check(dir.path(), known).await.context("the second time")?
                == (held, found.clone()),
            "the second time it holds something else"
        );
        if fate.is_multiple_of(10) || held.is_none() {
            let node = Node::open(dir.path(), self.engine)?;
            raft::starts(node, &found).await?;
        }
        Ok(held)
    }

    /// The node is killed but the power stays on: its successor finds what is in the page cache,
    /// and what it acts on must last from then on. None if the dead one was between its files.
    async fn kill(
        &self,
        disk: &Disk,
        known: Known,
        (story, generation): (String, u64),
    ) -> Result<Option<Past>> {
        let mut disk = disk.clone();
        let (seen, dir) = (scratch()?, scratch()?);
        disk.hand_on(seen.path())?;
        disk.hand_on(dir.path())?;
        let (held, _) =
            self.check(seen.path(), known).await.with_context(|| format!("{story}, killed"))?;
        let Some(held) = held else { return Ok(None) };
        let tape = self.live_on(dir.path(), held)?;
        let story = format!("{story}, killed");
        Ok(Some(Past { disk, tape, known, story, cuts: 5, generation: generation + 1 }))
    }

    /// What a node does that is started on `dir`, goes on after `held` operations, and dies.
    fn live_on(&self, dir: &Path, held: usize) -> Result<Tape> {
        let mut tape = Tape::default();
        let end = (held + LIFE / 4).min(self.ops.len());
        tape.record(dir, &mut victim(dir, self.engine, self.seed, (held, end)))?;
        Ok(tape)
    }

    /// What is in the store, and after which operation that is so.
    async fn check(&self, dir: &Path, known: Known) -> Result<(Option<usize>, Held)> {
        let mut node = Node::open(dir, self.engine)?;
        let found = node.read().await?;
        let logs = known.log..=known.asked;
        ensure!(
            logs.clone().any(|n| same_log(&self.held[n], &found)),
            "{}",
            explain(&self.held[logs], &found, known)
        );
        let snapshots = known.snapshots..=known.asked;
        ensure!(
            snapshots.clone().any(|n| same_snapshot(&self.held[n], &found)),
            "operations {snapshots:?} allow other snapshots than {:?}",
            found.snapshot
        );
        let after = logs
            .rev()
            .find(|n| same_log(&self.held[*n], &found) && same_snapshot(&self.held[*n], &found));
        Ok((after, found))
    }
}

/// A directory, what then happened to it, and how often to cut that short.
struct Past {
    disk: Disk,
    tape: Tape,
    known: Known,
    story: String,
    cuts: usize,
    generation: u64,
}

fn same_snapshot(held: &Held, found: &Held) -> bool {
    held.snapshot == found.snapshot
        && found.history.iter().all(|(index, term)| held.history.get(index) == Some(term))
}

fn same_log(held: &Held, found: &Held) -> bool {
    (held.vote, held.purged, held.committed, &held.log)
        == (found.vote, found.purged, found.committed, &found.log)
}

fn explain(possible: &[Held], found: &Held, known: Known) -> String {
    let line = |held: &Held| {
        let ends = (held.log.first_key_value(), held.log.last_key_value());
        format!(
            "vote {:?}, purged {:?}, committed {:?}, log {ends:?}",
            held.vote, held.purged, held.committed
        )
    };
    let mut text = format!(
        "acknowledged {}, asked {}; found {}; allowed",
        known.log,
        known.asked,
        line(found)
    );
    for held in possible {
        write!(text, " [{}]", line(held)).expect("a string takes text");
    }
    text
}

fn victim(dir: &Path, engine: Engine, seed: u64, ops: (usize, usize)) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_power-cut-victim"));
    command.arg(dir).arg(engine.name);
    command.args([seed.to_string(), ops.0.to_string(), ops.1.to_string()]);
    command
}

/// A new disk.
fn empty() -> Disk {
    let keeps_order = std::env::var_os("MUSTER_NAMES").is_none_or(|asked| asked != "any");
    if keeps_order { Disk::default() } else { Disk::default().with_names_in_any_order() }
}

/// How many cuts to make: a handful, or as many as a soak asks for.
fn cuts(default: usize) -> usize {
    std::env::var("MUSTER_CUTS").map_or(default, |n| n.parse().expect("MUSTER_CUTS is a number"))
}

/// What the judge did, and what he found.
struct Verdict {
    engine: Engine,
    cuts: usize,
    /// Recordings that were cut: whole ones, and what nodes did after a cut.
    lives: usize,
    /// Cuts that left the log after one operation and the snapshots after another.
    between: usize,
    failures: Vec<String>,
}

impl Verdict {
    fn none(engine: Engine) -> Self {
        Self { engine, cuts: 0, lives: 0, between: 0, failures: Vec::new() }
    }

    /// Makes at least `cuts` cuts in runs of `per_run`.
    async fn of(engine: Engine, cuts: usize, per_run: usize) -> Result<Self> {
        let mut verdict = Self::none(engine);
        for seed in 0..cuts.div_ceil(per_run) as u64 {
            // A long life lets an engine clean up and use its files again.
            let lives = if seed % 4 == 3 { 12 } else { 3 };
            let run = Run::record(engine, seed, lives * LIFE)
                .with_context(|| format!("record seed {seed}; so far {verdict}"))?;
            if let Err(error) = run.judge(per_run, &mut verdict).await {
                return Err(error.context(format!("judge seed {seed}; so far {verdict}")));
            }
        }
        writeln!(std::io::stderr(), "{verdict}")?;
        Ok(verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, cuts, lives, between, failures } = self;
        let (name, failed) = (engine.name, failures.len());
        write!(
            f,
            "{name}: {failed} of {cuts} cuts in {lives} lives failed, {between} between files"
        )?;
        for failure in failures.iter().take(5) {
            write!(f, "\n  {failure}")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_cut_loses_what_musters_store_acknowledged() -> Result<()> {
    let verdict = Verdict::of(MUSTER, cuts(150), 50).await?;
    ensure!(verdict.failures.is_empty(), "{verdict}");
    Ok(())
}

#[tokio::test]
async fn a_store_whose_making_was_interrupted_loses_nothing_later() -> Result<()> {
    let run = Run::record(MUSTER, 1, LIFE)?;
    let mut verdict = Verdict::none(MUSTER);
    let mut disk = Disk::default();
    for (at, event) in run.tape.events.iter().enumerate() {
        if *event == Event::Said("did 0".to_owned()) {
            break;
        }
        let story = (format!("event {at}"), 1);
        // Half of the points unless in a soak.
        let asked = Known { asked: 1, ..Known::default() };
        if (cuts(0) > 0 || at % 2 == 0)
            && let Some(past) = run.kill(&disk, asked, story).await?
        {
            run.judge_past(past, &mut verdict).await?;
        }
        disk.play(event)?;
    }
    ensure!(verdict.failures.is_empty(), "{verdict}");
    ensure!(verdict.cuts > 80, "only {} cuts", verdict.cuts);
    Ok(())
}

#[tokio::test]
async fn the_judge_catches_a_store_that_does_not_sync() -> Result<()> {
    let verdict = Verdict::of(FLUSH_ONLY, 50, 50).await?;
    ensure!(verdict.failures.len() > verdict.cuts / 10, "{verdict}");
    Ok(())
}

#[tokio::test]
async fn the_judge_catches_every_part_of_the_discipline_that_is_left_out() -> Result<()> {
    let run = Run::record(MUSTER, 3, LIFE)?;
    for how in Careless::ALL {
        let mut verdict = Verdict::none(MUSTER);
        run.judge_careless(how, &mut verdict).await?;
        writeln!(
            std::io::stderr(),
            "{how:?}: {} of {} cuts failed",
            verdict.failures.len(),
            verdict.cuts
        )?;
        ensure!(verdict.failures.len() > 2, "{how:?} is not noticed: {verdict}");
    }
    Ok(())
}

#[tokio::test]
async fn redb_is_judged_beside() -> Result<()> {
    let verdict = Verdict::of(REDB, cuts(50), 50).await?;
    ensure!(verdict.failures.is_empty(), "{verdict}");
    Ok(())
}

#[test]
fn every_acknowledgement_waits_for_a_sync_of_the_data() -> Result<()> {
    let run = Run::record(MUSTER, 2, LIFE)?;
    let mut synced = false;
    let mut acknowledged = 0;
    for event in &run.tape.events {
        match event {
            Event::Said(line) if !line.starts_with("did ") => synced = false,
            Event::Said(line) => {
                let number: usize = line.strip_prefix("did ").context("an odd line")?.parse()?;
                if run.ops[number].is_promise_of_log() {
                    ensure!(synced, "operation {number} was acknowledged without a sync");
                    acknowledged += 1;
                }
            }
            Event::Sync { path, .. } => synced |= path == Path::new("raft/data/db"),
            _ => {}
        }
    }
    ensure!(acknowledged > LIFE / 2, "only {acknowledged} acknowledgements");
    Ok(())
}
