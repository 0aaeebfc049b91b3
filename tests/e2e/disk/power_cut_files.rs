//! Power cuts of the small files. Whenever the power fails, a node starts again, as the same node
//! once it has printed its id, and forgets no promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use muster_formation::birth::BirthRecord;
use muster_init::units::etcd::credentials::{CredentialPaths, chain_pem};
use muster_init::units::etcd::dir::{EtcdDir, GenerationState};
use muster_sources::remembered;
use muster_tests::exclusive::MachineLock;
use muster_tests::first_seconds::{
    credentials, last_uncommitted, member, membership, peers, record, snapshot,
};
use muster_tests::power_cut::{Disk, Event, Mutation, Trace, scratch};
use muster_tests::secrets::if_exists;
use musterd::membership::Membership;
use musterd::state_dir::StateDir;
use musterd::{prepare, restore};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Lines of the node so far.
#[derive(Debug, Clone, Default)]
struct Observed {
    id: Option<String>,
    /// Epochs in which each step began, and in which it ended.
    doing: BTreeMap<String, BTreeSet<u64>>,
    did: BTreeMap<String, BTreeSet<u64>>,
}

impl Observed {
    fn on_line(&mut self, line: &str) -> Result<()> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["is", id] => {
                let before = self.id.replace(id.to_owned());
                ensure!(before.is_none_or(|before| before == id), "the node has another id now");
            }
            ["doing", what, epoch] => {
                self.doing.entry(what.to_owned()).or_default().insert(epoch.parse()?);
            }
            ["did", what, epoch] => {
                self.did.entry(what.to_owned()).or_default().insert(epoch.parse()?);
            }
            _ => anyhow::bail!("unexpected line: {line}"),
        }
        Ok(())
    }

    fn did(&self, what: &str, epoch: u64) -> bool {
        self.did.get(what).is_some_and(|epochs| epochs.contains(&epoch))
    }

    /// Returns the epochs from which the contents may be, the newest first: none before the last
    /// that was acknowledged, and 0 if nothing was written.
    fn possible(&self, what: &str) -> Vec<u64> {
        let last = |all: &BTreeMap<String, BTreeSet<u64>>| {
            all.get(what).and_then(|epochs| epochs.last().copied()).unwrap_or(0)
        };
        (last(&self.did)..=last(&self.doing)).rev().collect()
    }

    /// Returns the epoch of the contents, as `is_of` recognises it.
    fn epoch(&self, what: &str, is_of: impl Fn(u64) -> Result<bool>) -> Result<u64> {
        let possible = self.possible(what);
        for epoch in &possible {
            if is_of(*epoch)? {
                return Ok(*epoch);
            }
        }
        anyhow::bail!("{what}: the contents are from none of the epochs {possible:?}")
    }

    /// Starts the node on what a cut left in `dir`.
    fn check(&self, dir: &Path) -> Result<()> {
        let state = StateDir::open(&dir.join("var/state"))?;
        let (identity, promises) = prepare::identity::open(&state, false)?;
        let id = identity.node_id().to_string();
        ensure!(
            self.id.as_ref().is_none_or(|observed| *observed == id),
            "it has become another node"
        );
        self.epoch("bind", |epoch| Ok(record(epoch, &identity)? == promises.record))?;
        self.check_restore(&state, &promises.record)?;
        let found = Membership::load(&state.membership())?;
        let is_of = |epoch| Ok(found == (epoch > 0).then(|| membership(epoch)).transpose()?);
        if self.epoch("save", is_of)? > 0 {
            // Otherwise a member would start with an empty store and vote again.
            muster_storage::require_existing(&state.raft()).context("it is a member")?;
        }
        let known = remembered::read(&state.peers())?;
        self.epoch("remember", |epoch| Ok(known == peers(epoch)))?;
        self.check_etcd(&EtcdDir::new(state.etcd()))
    }

    /// Checks that the persisted snapshot is the expected one, and that a committed node has not
    /// forgotten its agreed snapshot.
    fn check_restore(&self, state: &StateDir, record: &BirthRecord) -> Result<()> {
        let desired = |is_member| -> Result<_> {
            Ok(restore::check(state.path(), None, is_member)?.map(|restore| restore.digest))
        };
        let agreed = |epoch| snapshot(epoch).map(|(digest, _)| digest);
        let written = desired(true)?;
        self.epoch("restore", |epoch| Ok(written == agreed(epoch)))?;
        let agreed_digest = desired(false)?;
        // An uncommitted node restores what its start requests, and this start requests nothing.
        let expected =
            if record.is_uncommitted() { None } else { agreed(last_uncommitted(record.epoch)) };
        ensure!(
            agreed_digest == expected,
            "committed in epoch {}, it starts with {agreed_digest:?}",
            record.epoch
        );
        Ok(())
    }

    /// Checks that an etcd member that has started never counts as new, and that its certificates
    /// are intact.
    fn check_etcd(&self, dir: &EtcdDir) -> Result<()> {
        for epoch in self.doing.get("start").into_iter().flatten().copied() {
            let member = member(epoch)?;
            let record = match dir.generation_state(member.generation)? {
                GenerationState::Unmanaged => {
                    anyhow::bail!("etcd's data {epoch} without a record of it")
                }
                GenerationState::Absent => None,
                GenerationState::Started(record)
                | GenerationState::Intact(record)
                | GenerationState::Lost(record) => Some(record),
            };
            ensure!(
                record.is_some() || !self.did("start", epoch),
                "etcd's start {epoch} is forgotten"
            );
            if let Some(record) = record {
                let same = record.name == member.name && record.initial == member.initial;
                ensure!(same, "etcd's member {epoch} is recorded as {record:?}");
                let is_recorded = record.had_data || !self.did("note", epoch);
                ensure!(is_recorded, "etcd's member {epoch} would start as new, without its data");
            }
        }
        let paths = CredentialPaths::in_dir(dir.root());
        for (path, which) in [(paths.authorities, 0), (paths.server, 1), (paths.peer, 2)] {
            let found = if_exists(fs::read(&path))?;
            let pem = |epoch| -> Result<String> {
                let of = credentials(epoch)?;
                Ok(match which {
                    0 => chain_pem(of.authorities.certificates()),
                    1 => of.server.to_pem().to_string(),
                    _ => of.peer.to_pem().to_string(),
                })
            };
            self.epoch("certify", |epoch| {
                Ok(found == (epoch > 0).then(|| pem(epoch).map(String::into_bytes)).transpose()?)
            })
            .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Plays `trace` on `disk` and cuts with chance one in `rarity` per event. Returns the failures.
fn check_cuts(
    disk: &mut Disk,
    trace: &Trace,
    mut observed: Observed,
    rarity: u32,
    (cuts, seed): (&mut usize, u64),
) -> Result<Vec<String>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failures = Vec::new();
    for at in 0..=trace.events.len() {
        if rng.random_ratio(1, rarity) {
            let left = scratch()?;
            disk.cut(left.path(), &mut rng)?;
            *cuts += 1;
            if let Err(error) = observed.check(left.path()) {
                failures.push(format!("seed {seed}, cut before event {at}: {error:#}"));
            }
        }
        if let Some(event) = trace.events.get(at) {
            disk.play(event)?;
            if let Event::Line(line) = event {
                observed.on_line(line)?;
            }
        }
    }
    Ok(failures)
}

fn recorded(dir: &Path) -> Result<Trace> {
    let mut trace = Trace::default();
    trace.record(dir, Command::new(env!("CARGO_BIN_EXE_power-cut-first-seconds")).arg(dir))?;
    Ok(trace)
}

#[test]
fn a_node_in_its_first_seconds_survives_a_cut_at_any_point() -> Result<()> {
    let _shared = MachineLock::shared()?;
    // A soak kills at every point, and makes as many rounds of cuts as requested.
    let soak = std::env::var("MUSTER_CUTS").ok().map(|n| n.parse::<u64>()).transpose()?;
    let dir = scratch()?;
    fs::create_dir(dir.path().join("var"))?;
    let first_disk = Disk::load(dir.path())?.with_names_in_any_order();
    let trace = recorded(dir.path())?;
    let (mut cuts, mut failures) = (0, Vec::new());
    for seed in 0..soak.map_or(5, |cuts| cuts / 100 + 5) {
        let mut disk = first_disk.clone();
        failures.extend(check_cuts(&mut disk, &trace, Observed::default(), 1, (&mut cuts, seed))?);
        disk.compare(dir.path()).context("the fault model misread the victim")?;
    }
    // Killed at every point with the power on, then cut during the successor's run.
    let (mut disk, mut observed) = (first_disk, Observed::default());
    for (at, event) in trace.events.iter().enumerate() {
        if soak.is_some() || at < 20 || at % 11 == 0 {
            let killed = || format!("killed before event {at}");
            let next = scratch()?;
            let mut disk = disk.clone();
            disk.write_live(next.path())?;
            let trace = recorded(next.path()).with_context(killed)?;
            let more_failures =
                check_cuts(&mut disk, &trace, observed.clone(), 8, (&mut cuts, 1000 + at as u64))?;
            failures.extend(
                more_failures
                    .into_iter()
                    .map(|more_failures| format!("{}: {more_failures}", killed())),
            );
        }
        disk.play(event)?;
        if let Event::Line(line) = event {
            observed.on_line(line)?;
        }
    }
    writeln!(std::io::stderr(), "small files: {} of {cuts} cuts failed", failures.len())?;
    let first_failures: Vec<_> = failures.iter().take(8).collect();
    ensure!(failures.is_empty(), "{} of {cuts} cuts failed: {first_failures:#?}", failures.len());
    Ok(())
}

#[test]
fn every_part_of_the_discipline_that_is_left_out_is_caught() -> Result<()> {
    let _shared = MachineLock::shared()?;
    let dir = scratch()?;
    fs::create_dir(dir.path().join("var"))?;
    let first_disk = Disk::load(dir.path())?.with_names_in_any_order();
    let trace = recorded(dir.path())?;
    let is_acknowledgement = |line: &str| line.starts_with("is ") || line.starts_with("did ");
    for mutation in Mutation::ALL {
        let mutated = trace.mutated(mutation, is_acknowledgement);
        let (mut cuts, mut failures) = (0, Vec::new());
        for seed in 0..2 {
            let mut disk = first_disk.clone();
            failures.extend(check_cuts(
                &mut disk,
                &mutated,
                Observed::default(),
                1,
                (&mut cuts, seed),
            )?);
        }
        writeln!(std::io::stderr(), "{mutation:?}: {} of {cuts} cuts failed", failures.len())?;
        ensure!(failures.len() > 2, "{mutation:?} is not noticed in {cuts} cuts: {failures:#?}");
    }
    Ok(())
}

/// Otherwise a file that the check does not know would pass.
#[test]
fn each_file_that_is_not_synced_is_caught() -> Result<()> {
    let _shared = MachineLock::shared()?;
    let dir = scratch()?;
    fs::create_dir(dir.path().join("var"))?;
    let first_disk = Disk::load(dir.path())?.with_names_in_any_order();
    let trace = recorded(dir.path())?;
    let names = [
        "birth",
        "restore-etcd",
        "membership.json",
        "peers.json",
        ".started",
        "ca.crt",
        "server.pem",
        "peer.pem",
    ];
    for name in names {
        let mut mutated = trace.clone();
        for event in &mut mutated.events {
            // Under its name before the rename.
            let is_it = |path: &Path| path.to_string_lossy().contains(name);
            if matches!(event, Event::Sync { path, .. } if is_it(path)) {
                *event = Event::Nothing;
            }
        }
        let (mut cuts, mut disk) = (0, first_disk.clone());
        let failures = check_cuts(&mut disk, &mutated, Observed::default(), 2, (&mut cuts, 0))?;
        writeln!(std::io::stderr(), "{name}: {} of {cuts} cuts failed", failures.len())?;
        ensure!(failures.len() > 2, "{name} is not missed in {cuts} cuts: {failures:#?}");
    }
    Ok(())
}
