//! Replicated state with 1,000 members: its size, and the time of a snapshot. The real state,
//! filled by its own `apply`, and the real store; the members are made up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use muster_pki::identity::{Identity, node_id};
use muster_pki::token::Token;
use muster_state::command::{Admit, FoundCluster, Founder};
use muster_state::{Command, Outcome, TimestampedCommand};
use muster_storage::{self, SLED, StoreIdentity};
use muster_types::{ClusterId, NodeId, NodeName, Role, UnixMillis};
use musterd::raft::types::{RaftStorage, TypeConfig};
use openraft::storage::{RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftSnapshotBuilder as _};

use super::measurement::{Measurement, Samples};
use super::{Bench, say};

const MEMBERS: u16 = 1000;

/// Number of entries appended at once, as openraft sends them to a lagging node.
const BATCH: usize = 100;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    say("state: 1,000 members");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let found = runtime.block_on(fill_and_snapshot(bench.amount(20, 3)))?;
    let subject = "musterd";
    let one = |what: &str, unit, value| Measurement::one((what, subject), unit, value, 1);
    bench.report.add(one("1,000 members: size of a snapshot", "KiB", found.snapshot_kib));
    bench.report.add(one("1,000 members: size of the Raft directory", "KiB", found.directory_kib));
    let what = "1,000 members: snapshot made and on disk";
    bench.report.add(Measurement::spread((what, subject), "ms", &found.snapshot, 95));
    let what = "1,000 members: applied to the state, one command";
    bench.report.add(one(what, "µs", found.apply_micros));
    let what = "1,000 members: store opened again";
    bench.report.add(Measurement::spread((what, subject), "ms", &found.open, 95));
    Ok(())
}

struct StateMeasurements {
    snapshot_kib: f64,
    directory_kib: f64,
    snapshot: Samples,
    apply_micros: f64,
    open: Samples,
}

async fn fill_and_snapshot(times: u32) -> Result<StateMeasurements> {
    let directory = tempfile::tempdir()?;
    let raft = directory.path().join("raft");
    let identity = StoreIdentity {
        node: NodeId::from_bytes([1; 32]),
        cluster: ClusterId::from_bytes([2; 32]),
    };
    let open = || -> Result<RaftStorage> { Ok(muster_storage::open(&raft, &identity, SLED)?) };
    let RaftStorage { mut log, mut machine, state } = open()?;
    let entries = commands()?.into_iter().enumerate();
    let entries: Vec<_> = entries.map(|(index, command)| entry(index, command)).collect();
    let mut applying = 0.0;
    for batch in entries.chunks(BATCH) {
        log.blocking_append(batch.to_vec()).await?;
        let start = Instant::now();
        let outcomes = machine.apply(batch.to_vec()).await?;
        applying += start.elapsed().as_secs_f64();
        let refused = outcomes.iter().find(|outcome| matches!(outcome, Outcome::Refused(_)));
        ensure!(refused.is_none(), "a command was refused: {refused:?}");
    }
    let members = state.borrow().members().count();
    ensure!(members == usize::from(MEMBERS), "the state has {members} members");
    let (mut snapshot, mut bytes) = (Samples::default(), 0);
    for _ in 0..times {
        let start = Instant::now();
        let made = machine.get_snapshot_builder().await.build_snapshot().await?;
        snapshot.push_millis(start.elapsed());
        bytes = made.snapshot.0.len();
    }
    drop((log, machine, state));
    let mut opened = Samples::default();
    for _ in 0..times {
        let start = Instant::now();
        let opened_store = open()?;
        opened.push_millis(start.elapsed());
        drop(opened_store);
    }
    Ok(StateMeasurements {
        snapshot_kib: kib(u64::try_from(bytes)?),
        directory_kib: kib(size_of_all(&raft)?),
        snapshot,
        apply_micros: applying * 1e6 / f64::from(MEMBERS),
        open: opened,
    })
}

/// Returns a founding by three nodes, and admissions up to [`MEMBERS`].
fn commands() -> Result<Vec<Command>> {
    let token = Token::generate();
    let (id, verifier) = (token.id().clone(), token.verifier());
    let keys: Vec<_> = (0..MEMBERS).map(|_| Identity::generate().public_key()).collect();
    let founder = |number: u16| -> Result<Founder> {
        let public_key = keys[usize::from(number)];
        Ok(Founder { public_key, name: name(number)?, addresses: vec![address(number)] })
    };
    let mut commands = vec![Command::FoundCluster(Box::new(FoundCluster {
        cluster_id: ClusterId::from_bytes([2; 32]),
        cluster_name: "bench".to_owned(),
        certificate: vec![1; 1500],
        founders: (0..3).map(founder).collect::<Result<_>>()?,
        operators: Vec::new(),
        token: id.clone(),
        verifier,
        config_digest: [5; 32],
    }))];
    for number in 3..MEMBERS {
        commands.push(Command::Admit(Admit {
            public_key: keys[usize::from(number)],
            name: name(number)?,
            role: Role::Worker,
            addresses: vec![address(number)],
            version: muster_types::VERSION.to_owned(),
            token: id.clone(),
            verified_by: node_id(&keys[0]),
        }));
    }
    Ok(commands)
}

fn name(number: u16) -> Result<NodeName> {
    format!("node-{number}").parse().context("a name")
}

fn address(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 1, high, low), muster_types::DEFAULT_PORT))
}

fn entry(index: usize, command: Command) -> Entry<TypeConfig> {
    let index = u64::try_from(index).unwrap_or(u64::MAX) + 1;
    let stamped = TimestampedCommand {
        now: UnixMillis::from_millis(1_700_000_000_000 + i64::try_from(index).unwrap_or(0)),
        command,
    };
    let leader = CommittedLeaderId::new(1, NodeId::from_bytes([1; 32]));
    Entry { log_id: LogId::new(leader, index), payload: EntryPayload::Normal(stamped) }
}

fn size_of_all(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of_all(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
