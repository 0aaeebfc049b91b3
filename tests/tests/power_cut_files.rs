//! The judgement of the small files: whenever the power fails, a node starts again, as the same
//! node once it has said its name, and forgets no promise that it has made.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_discovery::candidates::remembered;
use muster_tests::newcomer::{membership, peers};
use muster_tests::power_cut::{Careless, Disk, Event, Tape, scratch};
use musterd::membership::Membership;
use musterd::prepare;
use musterd::raft::store;
use musterd::state_dir::StateDir;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What the node has said so far.
#[derive(Debug, Clone, Default)]
struct Said {
    id: Option<String>,
    doing: u64,
    did: u64,
    saving: u64,
    saved: u64,
    remembering: u64,
    remembered: u64,
}

impl Said {
    fn hear(&mut self, line: &str) -> Result<()> {
        let (what, rest) = line.split_once(' ').context("an odd line")?;
        match what {
            "is" => {
                let before = self.id.replace(rest.to_owned());
                ensure!(before.is_none_or(|id| id == rest), "it is another node now");
            }
            "doing" => self.doing = rest.parse()?,
            "did" => self.did = rest.parse()?,
            "saving" => self.saving = rest.parse()?,
            "saved" => self.saved = rest.parse()?,
            "remembering" => self.remembering = rest.parse()?,
            "remembered" => self.remembered = rest.parse()?,
            _ => anyhow::bail!("an odd line: {line}"),
        }
        Ok(())
    }

    /// Starts the node on what a cut left in `dir`.
    fn check(&self, dir: &Path) -> Result<()> {
        let state = StateDir::open(&dir.join("var/state"))?;
        let (identity, promises) = prepare::identity(&state, false)?;
        let id = identity.node_id().to_string();
        ensure!(self.id.as_ref().is_none_or(|said| *said == id), "it has become another node");
        let turn = promises.record.turn;
        ensure!(
            (self.did..=self.doing).contains(&turn),
            "it has promised in turn {}, but remembers {turn}",
            self.did
        );
        let saved = match Membership::load(&state.membership())? {
            Some(found) => (1..=self.saving)
                .find(|turn| membership(*turn).is_ok_and(|saved| saved == found))
                .context("the membership was never saved")?,
            None => 0,
        };
        ensure!(saved >= self.saved, "membership {} was saved, but it is {saved}", self.saved);
        if saved > 0 {
            // Else a member would begin with an empty store, and vote again.
            store::require(&state.raft()).context("it is a member")?;
        }
        let known = remembered::read(&state.peers())?;
        let turn = known.len() as u64;
        ensure!(known == peers(turn), "peers that were never written");
        ensure!(
            (self.remembered..=self.remembering).contains(&turn),
            "{} peers were remembered, but it knows {turn}",
            self.remembered
        );
        Ok(())
    }
}

/// Plays `tape` on `disk` and cuts with chance one in `rarity` per event; what went wrong.
fn judge(
    disk: &mut Disk,
    tape: &Tape,
    mut said: Said,
    rarity: u32,
    (cuts, seed): (&mut usize, u64),
) -> Result<Vec<String>> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut failures = Vec::new();
    for at in 0..=tape.events.len() {
        if chance.random_ratio(1, rarity) {
            let left = scratch()?;
            disk.cut(left.path(), &mut chance)?;
            *cuts += 1;
            if let Err(error) = said.check(left.path()) {
                failures.push(format!("seed {seed}, cut before event {at}: {error:#}"));
            }
        }
        if let Some(event) = tape.events.get(at) {
            disk.play(event)?;
            if let Event::Said(line) = event {
                said.hear(line)?;
            }
        }
    }
    Ok(failures)
}

fn record(dir: &Path) -> Result<Tape> {
    let mut tape = Tape::default();
    tape.record(dir, Command::new(env!("CARGO_BIN_EXE_power-cut-newcomer")).arg(dir))?;
    Ok(tape)
}

#[test]
fn a_node_in_its_first_seconds_survives_a_cut_at_any_point() -> Result<()> {
    // A soak takes every point to kill at, and as many rounds of cuts as are asked for.
    let soak = std::env::var("MUSTER_CUTS").ok().map(|n| n.parse::<u64>()).transpose()?;
    let dir = scratch()?;
    fs::create_dir(dir.path().join("var"))?;
    let machine = Disk::load(dir.path())?.with_names_in_any_order();
    let tape = record(dir.path())?;
    let (mut cuts, mut failures) = (0, Vec::new());
    for seed in 0..soak.map_or(5, |cuts| cuts / 100 + 5) {
        let mut disk = machine.clone();
        failures.extend(judge(&mut disk, &tape, Said::default(), 1, (&mut cuts, seed))?);
        disk.compare(dir.path()).context("the fault model misread the victim")?;
    }
    // Killed at every point, with the power on; then cut in the life of its successor.
    let (mut disk, mut said) = (machine, Said::default());
    for (at, event) in tape.events.iter().enumerate() {
        if soak.is_some() || at < 20 || at % 5 == 0 {
            let killed = || format!("killed before event {at}");
            let next = scratch()?;
            let mut disk = disk.clone();
            disk.hand_on(next.path())?;
            let tape = record(next.path()).with_context(killed)?;
            let wrong = judge(&mut disk, &tape, said.clone(), 8, (&mut cuts, 1000 + at as u64))?;
            failures.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", killed())));
        }
        disk.play(event)?;
        if let Event::Said(line) = event {
            said.hear(line)?;
        }
    }
    writeln!(std::io::stderr(), "small files: {} of {cuts} cuts failed", failures.len())?;
    let few: Vec<_> = failures.iter().take(8).collect();
    ensure!(failures.is_empty(), "{} of {cuts} cuts failed: {few:#?}", failures.len());
    Ok(())
}

#[test]
fn the_judge_catches_every_part_of_the_discipline_that_is_left_out() -> Result<()> {
    let dir = scratch()?;
    fs::create_dir(dir.path().join("var"))?;
    let machine = Disk::load(dir.path())?.with_names_in_any_order();
    let tape = record(dir.path())?;
    let is_promise = |line: &str| {
        ["is ", "did ", "saved ", "remembered "].iter().any(|word| line.starts_with(word))
    };
    for how in Careless::ALL {
        let careless = tape.of_careless(how, is_promise);
        let (mut cuts, mut failures) = (0, Vec::new());
        for seed in 0..2 {
            let mut disk = machine.clone();
            failures.extend(judge(&mut disk, &careless, Said::default(), 1, (&mut cuts, seed))?);
        }
        writeln!(std::io::stderr(), "{how:?}: {} of {cuts} cuts failed", failures.len())?;
        ensure!(failures.len() > 2, "{how:?} is not noticed in {cuts} cuts: {failures:#?}");
    }
    Ok(())
}
