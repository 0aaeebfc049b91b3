//! The other program whose power is cut: `power-cut-first-seconds DIR` is a node in its first
//! seconds. It makes its state directory, identity and birth record. Then it repeatedly persists
//! its commitment and the snapshot to restore, saves its membership and its peers, and starts as a
//! member of etcd. It prints each step and runs under strace.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use muster_formation::birth::BirthRecord;
use muster_init::units::etcd::credentials::{self, CredentialPaths};
use muster_init::units::etcd::dir::EtcdDir;
use muster_sources::remembered;
use muster_storage::{self, SLED, StoreIdentity};
use muster_tests::first_seconds::{CLUSTER, member, membership, peers, record, snapshot};
use muster_types::ClusterId;
use musterd::state_dir::StateDir;
use musterd::{prepare, restore};

/// Number of epochs. Each of them writes everything again.
const EPOCHS: u64 = 9;

fn main() -> Result<()> {
    let dir =
        std::env::args().nth(1).map(PathBuf::from).context("usage: power-cut-first-seconds DIR")?;
    let state = StateDir::open(&dir.join("var/state"))?;
    let (identity, promises) = prepare::identity::open(&state, false)?;
    say(&format!("is {}", identity.node_id()))?;
    // A node acts on the promises that it finds, so they count as made.
    let found = promises.record.epoch;
    announce("bind", found, || Ok(()))?;
    // Not on the traced disk: it is the operator's.
    let operator_dir = tempfile::tempdir()?;
    if promises.record.is_uncommitted() {
        announce("restore", found, || {
            persist_restore(&state, &promises.record, operator_dir.path())
        })?;
    }
    // As a member does: the store is there before the membership.
    let owner = StoreIdentity { node: identity.node_id(), cluster: ClusterId::from_bytes(CLUSTER) };
    muster_storage::create(&state.raft(), &owner, SLED)?;
    let etcd_dir = EtcdDir::new(state.etcd());
    for epoch in found + 1..=found + EPOCHS {
        let record = record(epoch, &identity)?;
        announce("bind", epoch, || Ok(promises.store.write(&record)?))?;
        if record.is_uncommitted() {
            announce("restore", epoch, || persist_restore(&state, &record, operator_dir.path()))?;
        }
        announce("save", epoch, || Ok(membership(epoch)?.save(&state.membership())?))?;
        announce("remember", epoch, || Ok(remembered::write(&state.peers(), &peers(epoch))?))?;
        start_etcd(&etcd_dir, epoch)?;
    }
    Ok(())
}

/// Does what `musterd --restore-etcd` does before a promise is possible.
fn persist_restore(state: &StateDir, record: &BirthRecord, operator_dir: &Path) -> Result<()> {
    let file = operator_dir.join("snapshot");
    let given = match snapshot(record.epoch) {
        Some((_, bytes)) => {
            fs::write(&file, bytes)?;
            Some(file.as_path())
        }
        None => None,
    };
    let restore = restore::check(state.path(), given, false)?;
    Ok(restore::persist(state, record, restore.as_ref())?)
}

/// Does what the etcd unit and etcd do at the first start of a member. etcd syncs its data; this
/// does not, because the record must outlive the data.
fn start_etcd(etcd_dir: &EtcdDir, epoch: u64) -> Result<()> {
    let member = member(epoch)?;
    muster_files::create_private_directory(etcd_dir.root())?;
    let paths = CredentialPaths::in_dir(etcd_dir.root());
    announce("certify", epoch, || Ok(credentials::write(&paths, &member.credentials)?))?;
    announce("start", epoch, || Ok(etcd_dir.check_start(&member)?))?;
    let data = etcd_dir.data(member.generation).join("member");
    for file in ["wal/0.wal", "snap/db"] {
        let file = data.join(file);
        fs::create_dir_all(file.parent().context("it has one")?)?;
        fs::write(file, "etcd's own")?;
    }
    announce("note", epoch, || {
        anyhow::ensure!(etcd_dir.record_data(member.generation)?, "etcd's data is not found");
        Ok(())
    })
}

/// Prints that it begins a step, performs it, and prints that it ended.
fn announce(what: &str, epoch: u64, something: impl FnOnce() -> Result<()>) -> Result<()> {
    say(&format!("doing {what} {epoch}"))?;
    something()?;
    say(&format!("did {what} {epoch}"))
}

/// One line is one write, so that it has its place among the file operations.
fn say(line: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(format!("{line}\n").as_bytes())?)
}
