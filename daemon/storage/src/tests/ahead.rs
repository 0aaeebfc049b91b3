//! Tests of a leader that is ahead of its disk: visible and forbidden effects.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures::poll;
use muster_types::{ClusterId, NodeId};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};

use super::{Config, Listed};
use crate::*;

const ME: u64 = 1;

/// Longest time that a hanging disk hangs.
const MAX_HANG: Duration = Duration::from_secs(20);

/// Behaviour of the simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Working,
    Hanging,
    Failing,
}

/// Behaviour of the disk, and the number of commits it has received. The tests share it, so each
/// holds [`TURN`].
static DISK: (Mutex<(Disk, usize)>, Condvar) = (Mutex::new((Disk::Working, 0)), Condvar::new());
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Sets the disk's behaviour; returns the number of commits it has received so far.
fn disk(behaviour: Disk) -> usize {
    let mut disk = DISK.0.lock().unwrap_or_else(PoisonError::into_inner);
    disk.0 = behaviour;
    DISK.1.notify_all();
    disk.1
}

/// Waits until the disk has received more than `before` commits: the next hang is a hang in the
/// disk.
async fn wait_for_commit_after(before: usize) {
    let given = async {
        while DISK.0.lock().unwrap_or_else(PoisonError::into_inner).1 <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MAX_HANG, given).await.expect("the writer calls the disk");
}

/// [`SLED`] on the simulated disk.
const ENGINE: Engine = Engine {
    name: "slow",
    open: |dir| Ok(Arc::new(TestStore((SLED.open)(dir)?)) as Arc<dyn Store>),
};

struct TestStore(Arc<dyn Store>);

impl Store for TestStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut disk = DISK.0.lock().unwrap_or_else(PoisonError::into_inner);
        disk.1 += 1;
        // With a timeout, so that a test that fails meanwhile can end.
        let hangs = |disk: &mut (Disk, usize)| disk.0 == Disk::Hanging;
        let (disk, _) = DISK.1.wait_timeout_while(disk, MAX_HANG, hangs).unwrap();
        match disk.0 {
            Disk::Failing => Err(StoreError::Stopped("the disk is gone".to_owned())),
            Disk::Working | Disk::Hanging => self.0.commit(changes),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        self.0.scan(table, from, to)
    }
}

fn open_in(dir: &Path) -> RaftStorage<Config, Listed> {
    disk(Disk::Working);
    let identity = StoreIdentity {
        node: NodeId::from_bytes([1; 32]),
        cluster: ClusterId::from_bytes([2; 32]),
    };
    let RaftStorage { log, machine, state } = open(&dir.join("raft"), &identity, ENGINE).unwrap();
    RaftStorage { log: log.ahead_as(ME), machine, state }
}

fn entry(index: u64, leader: (u64, u64)) -> Entry<Config> {
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(leader.0, leader.1), index),
        payload: EntryPayload::Normal(format!("command {index}")),
    }
}

#[tokio::test]
async fn a_leaders_entry_is_replicated_before_and_applied_after_it_is_on_disk() {
    let (_turn, dir) = (TURN.lock().await, tempfile::tempdir().unwrap());
    let RaftStorage { mut log, mut machine, state } = open_in(dir.path());
    log.save_vote(&Vote::new_committed(3, ME)).await.unwrap();
    let before = disk(Disk::Hanging);
    log.blocking_append([entry(0, (3, ME))]).await.unwrap();
    assert_eq!(log.get_log_reader().await.try_get_log_entries(0..1).await.unwrap().len(), 1);

    let flushed = log.flushed();
    let mut durable = Box::pin(flushed.wait_for(0));
    let mut applied = Box::pin(machine.apply([entry(0, (3, ME))]));
    let mut removed = Box::pin(log.truncate(entry(0, (3, ME)).log_id));
    wait_for_commit_after(before).await;
    assert!(poll!(&mut durable).is_pending() && poll!(&mut applied).is_pending());
    assert!(poll!(&mut removed).is_pending(), "an entry that is not on disk yet cannot be removed");
    assert!(state.borrow().0.is_empty());

    disk(Disk::Working);
    durable.await.unwrap();
    applied.await.unwrap();
    removed.await.unwrap();
    assert_eq!(state.borrow().0.len(), 1);
    drop((log, machine));
    let mut log = open_in(dir.path()).log;
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, None, "it came back");
}

#[tokio::test]
async fn only_a_leader_is_ahead() {
    let (_turn, dir) = (TURN.lock().await, tempfile::tempdir().unwrap());
    let mut log = open_in(dir.path()).log;
    let votes_and_entries = [
        // It is only a candidate.
        (Vote::new(3, ME), entry(0, (3, ME))),
        // Another node leads and replicates entries that this node proposed as leader.
        (Vote::new_committed(4, 2), entry(1, (3, ME))),
        (Vote::new_committed(4, 2), entry(2, (4, 2))),
        // It leads now, but not in the term of the entry.
        (Vote::new_committed(5, ME), entry(3, (4, 2))),
        (Vote::new_committed(5, ME), entry(4, (3, ME))),
    ];
    for (vote, entry) in votes_and_entries {
        disk(Disk::Working);
        log.save_vote(&vote).await.unwrap();
        let before = disk(Disk::Hanging);
        let mut append = Box::pin(log.blocking_append([entry.clone()]));
        assert!(poll!(&mut append).is_pending());
        wait_for_commit_after(before).await;
        assert!(poll!(&mut append).is_pending(), "{vote}: {entry:?}");
        disk(Disk::Working);
        append.await.unwrap();
    }
}

#[tokio::test]
async fn a_leader_whose_disk_fails_applies_and_takes_nothing_more() {
    let (_turn, dir) = (TURN.lock().await, tempfile::tempdir().unwrap());
    let RaftStorage { mut log, mut machine, .. } = open_in(dir.path());
    log.save_vote(&Vote::new_committed(3, ME)).await.unwrap();
    disk(Disk::Failing);
    log.blocking_append([entry(0, (3, ME))]).await.unwrap();
    let durable = log.flushed().wait_for(0).await.unwrap_err().to_string();
    let applied = machine.apply([entry(0, (3, ME))]).await.unwrap_err().to_string();
    let more = log.blocking_append([entry(1, (3, ME))]).await.unwrap_err().to_string();
    for error in [durable, applied, more] {
        assert!(error.contains("the disk is gone"), "{error}");
    }
    disk(Disk::Working);
}
