//! Raft's storage: votes and log entries in a [`Store`], the state machine in memory with snapshots
//! in files. Nothing is acknowledged before it is durable.
//!
//! A Raft node that forgets a vote can elect two leaders in one term; one that forgets an entry
//! loses an acknowledged write. So there is one way to disk: every change goes through the one
//! [`Writer`], which commits batches and answers only after `fdatasync`. The power-cut test
//! (`tests/e2e/disk/power_cut_store.rs`) verifies this.
//!
//! ```text
//! raft/store.json   identity and format of the store (written first, read first)
//! raft/lock         locked while a daemon runs
//! raft/mark         the last acknowledged commit: detects a store that was rolled back
//! raft/data/        the engine's own files
//! raft/snapshots/   the last two snapshots of the state machine
//! ```

#[cfg(test)]
mod ahead_tests;
mod cache;
mod codec;
mod commit_mark;
mod directory;
mod durable;
mod durable_index;
mod envelope;
#[cfg(test)]
mod fuzz;
mod log;
mod machine;
mod reader;
mod sled_store;
mod snapshot;
mod stall;
mod types;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::RaftTypeConfig;
use tokio::sync::watch;

pub use codec::MAX_ENTRY;
pub use directory::{DirectoryError, FORMAT, StoreIdentity};
pub use durable_index::DurableWatch;
pub use log::LogStore;
pub use machine::{ReplicatedState, SnapshotBuilder, StateMachine};
pub use reader::LogReader;
pub use sled_store::SLED;
pub use snapshot::{MAX_SNAPSHOT, SnapshotBody, SnapshotStore};
pub use stall::DiskStall;
pub use types::TypeConfig;
pub use writer::Writer;

/// Advice for a node whose files cannot be trusted any more (docs/guide/operations.md).
pub const REINITIALISE: &str = "this node must be re-initialised: remove it from its cluster \
    (`musterctl node remove NAME`), move its state directory away and start it again";

/// Largest value given to an engine, in bytes; longer entries are split into parts.
///
/// sled moves a page above 128 KiB to a separate file, which it never syncs. A page holds up to 20
/// values (17 before it is split, or 16 and 3 when it is merged).
pub const MAX_VALUE: usize = 4 << 10;

/// One of the two ordered maps of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Log entries by index.
    Log,
    /// Vote, committed and purged log ids, and the number of the last commit.
    Meta,
}

/// One change to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put { table: Table, key: Vec<u8>, value: Vec<u8> },
    Delete { table: Table, key: Vec<u8> },
}

/// Two ordered maps of bytes that survive a power cut.
pub trait Store: Send + Sync + 'static {
    /// Applies all of `changes`, in order, or none. On return they are on disk. After an error the
    /// contents of the disk are unknown: the store must be reopened before it is written again.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Returns the value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns all pairs from `from` (inclusive) to `to` (exclusive), in key order.
    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError>;
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A storage engine. Muster uses [`SLED`]; the power-cut test also checks others.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// Name recorded in `store.json`.
    pub name: &'static str,
    /// Opens the store in this existing directory; creates it if the directory is empty.
    pub open: fn(&Path) -> Result<Arc<dyn Store>, StoreError>,
}

/// A failed read or write of the store. None of these is transient: Raft must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} the Raft store in {}", path.display())]
    Engine { what: &'static str, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "the Raft store is corrupted: {}: {why}; {REINITIALISE}", path.display()
    )]
    Corrupt { path: PathBuf, why: String },
    #[error(
        "the Raft store in {} has lost acknowledged writes: found commit {found}, expected commit \
         {acknowledged}; {REINITIALISE}", path.display()
    )]
    RolledBack { path: PathBuf, found: u64, acknowledged: u64 },
    #[error("value of {len} bytes exceeds the Raft store's limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("the Raft store stopped after an error: {0}")]
    Stopped(String),
}

/// A node's Raft state could not be opened. An existing one is unchanged on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node's open Raft state.
pub struct RaftStorage<C: RaftTypeConfig, S: ReplicatedState> {
    pub log: LogStore<C>,
    pub machine: StateMachine<C, S>,
    /// State after the last applied entry; updated with every applied batch.
    pub state: watch::Receiver<Arc<S>>,
}

impl<C: RaftTypeConfig, S: ReplicatedState> std::fmt::Debug for RaftStorage<C, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStorage").finish_non_exhaustive()
    }
}

/// Creates an empty store of `identity` in `dir`, unless one exists. A caller that records its
/// success can later use [`require_existing`] to distinguish a lost store from one never created.
pub fn create(dir: &Path, identity: &StoreIdentity, engine: Engine) -> Result<(), OpenError> {
    directory::create(dir, identity, engine).map(drop)
}

/// Returns an error if the store created in `dir` is missing. A node without its store has
/// forgotten its votes and acknowledged entries, and could vote twice in a term.
pub fn require_existing(dir: &Path) -> Result<(), OpenError> {
    Ok(directory::require_existing(dir)?)
}

/// Opens the Raft state of `identity` in `dir`; creates it if `dir` does not exist or is empty.
/// Blocks on disk I/O: call it from a thread that may block.
pub fn open<C, S>(
    dir: &Path,
    identity: &StoreIdentity,
    engine: Engine,
) -> Result<RaftStorage<C, S>, OpenError>
where
    C: RaftTypeConfig<
            Entry = openraft::Entry<C>,
            SnapshotData = SnapshotBody,
            D = S::Command,
            R = S::Outcome,
        >,
    C::D: Clone,
    S: ReplicatedState,
{
    let directory = directory::open(dir, identity, engine)?;
    let snapshots = Arc::new(SnapshotStore::open(dir.join("snapshots"))?);
    let log = LogStore::open(directory, snapshots.durable_index())?;
    let machine = StateMachine::open(snapshots, log.purged_index(), log.flushed())?;
    let state = machine.subscribe();
    Ok(RaftStorage { log, machine, state })
}

/// Runs `work` on a thread that may block on the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(StoreError::Stopped(format!("a task of the store failed: {e}"))))
}
