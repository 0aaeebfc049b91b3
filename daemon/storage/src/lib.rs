//! Raft's storage: votes and log entries in a [`Store`], the state machine in memory with snapshots
//! in files. Nothing is acknowledged before it is durable, except a leader's own entries (see
//! [`LogStore::ahead_as`]).
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

mod blocking;
mod codec;
mod durable_index;
mod engine;
mod error;
mod log;
mod machine;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;
use std::sync::Arc;

use openraft::RaftTypeConfig;
use tokio::sync::watch;

pub use durable_index::DurableWatch;
pub use engine::{
    Change, DirectoryError, DiskStall, Engine, FORMAT, KeyValue, MAX_VALUE, OpenError, SLED, Store,
    StoreIdentity, Table, Writer,
};
pub use error::{REINITIALISE, StoreError};
pub use log::{LogReader, LogStore, MAX_ENTRY};
pub use machine::{ReplicatedState, SnapshotBuilder, StateMachine};
pub use snapshot::{MAX_SNAPSHOT, SnapshotBody, SnapshotStore};
pub use types::TypeConfig;

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
    engine::directory::create(dir, identity, engine).map(drop)
}

/// Returns an error if the store created in `dir` is missing. A node without its store has
/// forgotten its votes and acknowledged entries, and could vote twice in a term.
pub fn require_existing(dir: &Path) -> Result<(), OpenError> {
    Ok(engine::directory::require_existing(dir)?)
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
    let directory = engine::directory::open(dir, identity, engine)?;
    let snapshots = Arc::new(SnapshotStore::open(dir.join("snapshots"))?);
    let log = LogStore::open(directory, snapshots.durable_index())?;
    let machine = StateMachine::open(snapshots, log.purged_index(), log.flushed())?;
    let state = machine.subscribe();
    Ok(RaftStorage { log, machine, state })
}
