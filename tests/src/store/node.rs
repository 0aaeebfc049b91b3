//! A node reduced to its store: performs a script of operations on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use muster_storage::{
    self, DirectoryError, Engine, LogStore, OpenError, RaftStorage, ReplicatedState, SnapshotBody,
    StateMachine, StoreIdentity,
};
use muster_types::{ClusterId, NodeId};
use musterd::raft::codec;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, RaftSnapshotBuilder,
    SnapshotMeta, StoredMembership, Vote,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::script::{Op, StoreContents, command};

openraft::declare_raft_types!(
    pub Config:
        D = String,
        R = (),
        NodeId = u64,
        Node = openraft::EmptyNode,
        Entry = Entry<Config>,
        SnapshotData = SnapshotBody,
);

/// Replicated state that lists every applied command by index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedCommands(pub BTreeMap<u64, String>);

impl ReplicatedState for AppliedCommands {
    type Command = String;
    type Outcome = ();

    fn apply(&mut self, index: u64, command: &String) {
        self.0.insert(index, command.clone());
    }

    fn empty_outcome() {}
}

#[derive(Debug)]
pub struct Node {
    pub log: LogStore<Config>,
    pub machine: StateMachine<Config, AppliedCommands>,
    pub state: watch::Receiver<Arc<AppliedCommands>>,
}

/// Id of this node, which votes and leads.
const NODE: u64 = 1;

fn log_id(index: u64, term: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, NODE), index)
}

impl Node {
    pub fn open(dir: &Path, engine: Engine) -> Result<Self> {
        let identity = StoreIdentity {
            node: NodeId::from_bytes([1; 32]),
            cluster: ClusterId::from_bytes([2; 32]),
        };
        let start = Instant::now();
        loop {
            match muster_storage::open(&dir.join("raft"), &identity, engine) {
                Ok(RaftStorage { log, machine, state }) => {
                    return Ok(Self { log: log.ahead_as(NODE), machine, state });
                }
                // A child process that another thread is starting holds a copy of the released lock
                // until it executes its program.
                Err(OpenError::Directory(DirectoryError::Locked { .. }))
                    if start.elapsed() < Duration::from_secs(5) =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Performs `op` on a store with the contents `before`.
    pub async fn perform(&mut self, op: &Op, before: &StoreContents) -> Result<()> {
        match *op {
            Op::Vote { term } => self.log.save_vote(&Vote::new(term, NODE)).await?,
            Op::Lead { term } => self.log.save_vote(&Vote::new_committed(term, NODE)).await?,
            Op::Append { first, count, term, ahead: _ } => {
                let entries = (first..first + count).map(|index| Entry {
                    log_id: log_id(index, term),
                    payload: EntryPayload::Normal(command(index, term)),
                });
                self.log.blocking_append(entries.collect::<Vec<_>>()).await?;
            }
            Op::Truncate { from } => {
                self.log.truncate(log_id(from, before.history[&from])).await?;
            }
            Op::Commit { to } => {
                let term = before.history[&to];
                self.log.save_committed(Some(log_id(to, term))).await?;
                self.apply_up_to(to).await?;
            }
            Op::Snapshot => {
                self.machine.get_snapshot_builder().await.build_snapshot().await?;
            }
            Op::Purge { to } => self.log.purge(log_id(to, before.history[&to])).await?,
            Op::Install { to } => {
                let mut after = before.clone();
                after.perform(op);
                let terms = after.history.iter();
                let applied_terms = terms.map(|(index, term)| (*index, command(*index, *term)));
                let body =
                    SnapshotBody(codec::encode(&AppliedCommands(applied_terms.collect())).into());
                let meta = SnapshotMeta {
                    last_log_id: Some(log_id(to, after.history[&to])),
                    last_membership: StoredMembership::default(),
                    snapshot_id: format!("{to}-of-the-leader"),
                };
                self.machine.install_snapshot(&meta, Box::new(body)).await?;
            }
        }
        Ok(())
    }

    pub async fn apply_up_to(&mut self, to: u64) -> Result<()> {
        let (applied, _) = self.machine.applied_state().await?;
        let next = applied.map_or(0, |id| id.index + 1);
        if next > to {
            return Ok(()); // a snapshot covers it
        }
        let entries = self.log.try_get_log_entries(next..=to).await?;
        self.machine.apply(entries).await?;
        Ok(())
    }
}
