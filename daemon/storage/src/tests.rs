//! openraft's own suite, and tests of rejected and damaged stores.

mod ahead;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_types::{ClusterId, NodeId};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, RaftSnapshotBuilder, Vote,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

openraft::declare_raft_types!(
    pub(super) Config:
        D = String,
        R = Option<u64>,
        NodeId = u64,
        Node = openraft::EmptyNode,
        Entry = Entry<Config>,
        SnapshotData = SnapshotBody,
);

/// Test state that lists every applied command with its index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed(pub(super) Vec<(u64, String)>);

impl ReplicatedState for Listed {
    type Command = String;
    type Outcome = Option<u64>;

    fn apply(&mut self, index: u64, command: &String) -> Option<u64> {
        self.0.push((index, command.clone()));
        Some(index)
    }

    fn empty_outcome() -> Option<u64> {
        None
    }
}

type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;

struct OnDisk;

impl StoreBuilder<Config, LogStore<Config>, StateMachine<Config, Listed>, tempfile::TempDir>
    for OnDisk
{
    async fn build(
        &self,
    ) -> Result<
        (tempfile::TempDir, LogStore<Config>, StateMachine<Config, Listed>),
        openraft::StorageError<u64>,
    > {
        let dir = tempfile::tempdir().unwrap();
        let opened = open_in(&dir).unwrap();
        Ok((dir, opened.log.with_all_covered(), opened.machine.without_log()))
    }
}

/// Time after which a forbidden event would have happened.
const GRACE: Duration = Duration::from_millis(300);

fn identity() -> StoreIdentity {
    StoreIdentity { node: NodeId::from_bytes([1; 32]), cluster: ClusterId::from_bytes([2; 32]) }
}

fn open_in(dir: &tempfile::TempDir) -> Result<RaftStorage<Config, Listed>, OpenError> {
    open_as(dir, &identity())
}

fn open_as(
    dir: &tempfile::TempDir,
    identity: &StoreIdentity,
) -> Result<RaftStorage<Config, Listed>, OpenError> {
    open(&dir.path().join("raft"), identity, SLED)
}

fn entry(index: u64, command: impl Into<String>) -> Entry<Config> {
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(command.into()),
    }
}

/// Lists every file with its contents and modification time.
fn all_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.push((path.clone(), fs::read(&path).unwrap(), changed));
        }
    }
    found.sort();
    found
}

fn refusal<T>(opened: Result<T, OpenError>) -> DirectoryError {
    match opened {
        Err(OpenError::Directory(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn openrafts_own_suite_passes_on_real_files() {
    Suite::test_all(OnDisk).unwrap();
}

#[test]
fn a_foreign_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_in(&dir).unwrap());
    let before = all_files(dir.path());

    let other = StoreIdentity { cluster: ClusterId::from_bytes([9; 32]), ..identity() };
    let error = refusal(open_as(&dir, &other));
    assert!(matches!(error, DirectoryError::OtherCluster { .. }), "{error}");

    let other = StoreIdentity { node: NodeId::from_bytes([9; 32]), ..identity() };
    let error = refusal(open_as(&dir, &other));
    assert!(matches!(error, DirectoryError::OtherNode { .. }), "{error}");

    let engine = Engine { name: "another", ..SLED };
    let error = refusal(open::<Config, Listed>(&dir.path().join("raft"), &identity(), engine));
    assert!(matches!(error, DirectoryError::OtherEngine { .. }), "{error}");

    assert_eq!(all_files(dir.path()), before);
}

#[test]
fn a_newer_format_is_refused_even_when_nothing_else_of_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_in(&dir).unwrap());
    let header = dir.path().join("raft/store.json");
    fs::write(&header, r#"{"format": 2, "shape": "unheard of"}"#).unwrap();
    let before = all_files(dir.path());
    let error = refusal(open_in(&dir)).to_string();
    assert!(error.contains("newer") && error.contains("store.json"), "{error}");
    assert_eq!(all_files(dir.path()), before);
}

#[test]
fn a_directory_of_something_else_is_not_taken_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let raft = dir.path().join("raft");
    muster_files::create_private_directory(&raft).unwrap();
    fs::write(raft.join("notes.txt"), "mine").unwrap();
    let before = all_files(dir.path());
    let error = refusal(open_in(&dir));
    assert!(matches!(error, DirectoryError::NoHeader { .. }), "{error}");
    assert_eq!(all_files(dir.path()), before);
}

#[test]
fn a_store_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_in(&dir).unwrap());
    fs::set_permissions(dir.path().join("raft"), fs::Permissions::from_mode(0o750)).unwrap();
    let error = refusal(open_in(&dir)).to_string();
    assert!(error.contains("750") && error.contains("chmod 700"), "{error}");
}

#[test]
fn two_daemons_do_not_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_in(&dir).unwrap();
    let error = refusal(open_in(&dir));
    assert!(matches!(error, DirectoryError::Locked { .. }), "{error}");
    drop(first);
    open_in(&dir).unwrap();
}

#[tokio::test]
async fn long_entries_survive_and_too_long_ones_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lengthy = "x".repeat(MAX_ENTRY - 1000);
    let mut log = open_in(&dir).unwrap().log;
    log.blocking_append([entry(0, lengthy.clone()), entry(1, "short")]).await.unwrap();
    let error = log.blocking_append([entry(2, "x".repeat(MAX_ENTRY))]).await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    log.save_vote(&Vote::new(3, 1)).await.unwrap();
    drop(log);

    let mut log = open_in(&dir).unwrap().log;
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(matches!(&entries[0].payload, EntryPayload::Normal(text) if *text == lengthy));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
}

#[tokio::test]
async fn entries_that_left_memory_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_in(&dir).unwrap().log;
    let text = |index: u64| index.to_string().repeat(20_000);
    for index in 0..60 {
        log.blocking_append([entry(index, text(index))]).await.unwrap();
    }
    let all = log.try_get_log_entries(3..58).await.unwrap();
    assert_eq!(all.len(), 55);
    for (found, index) in all.iter().zip(3..) {
        assert_eq!(found.log_id.index, index);
        assert!(matches!(&found.payload, EntryPayload::Normal(t) if *t == text(index)));
    }
    let some = log.get_log_reader().await.limited_get_log_entries(3, 58).await.unwrap();
    assert!(!some.is_empty() && some.len() < 55, "{}", some.len());
    assert_eq!(some[0].log_id.index, 3);
}

#[tokio::test]
async fn writes_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    muster_files::create_private_directory(&dir.path().join("raft")).unwrap();
    let directory = engine::directory::open(&dir.path().join("raft"), &identity(), SLED).unwrap();
    let writer = Writer::open(directory).unwrap();
    let put = |n: u64| {
        let key = n.to_be_bytes().to_vec();
        vec![Change::Put { table: Table::Meta, key, value: vec![7; 100] }]
    };
    futures::future::join_all((0..64).map(|n| writer.write(put(n)))).await;
    let sequence = writer.get(Table::Meta, b"sequence").unwrap().unwrap();
    let commits = u64::from_be_bytes(sequence.try_into().unwrap());
    assert!(commits < 16, "{commits} commits for 64 writes");
}

/// Creates a store with two snapshots, of entries 0 to 4 and 0 to 9; returns their paths, oldest
/// first.
async fn two_snapshots(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let RaftStorage { mut log, mut machine, .. } = open_in(dir).unwrap();
    for index in 0..10 {
        let entry = entry(index, format!("command {index}"));
        log.blocking_append([entry.clone()]).await.unwrap();
        machine.apply([entry]).await.unwrap();
        if index % 5 == 4 {
            machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        }
    }
    let snapshots = fs::read_dir(dir.path().join("raft/snapshots")).unwrap();
    let mut paths: Vec<_> = snapshots.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_replaced_by_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let paths = two_snapshots(&dir).await;
    flip_a_bit(&paths[1]);
    let RaftStorage { mut machine, state, .. } = open_in(&dir).unwrap();
    assert_eq!(machine.applied_state().await.unwrap().0.map(|id| id.index), Some(4));
    assert_eq!(state.borrow().0.len(), 5);
    assert!(paths[1].with_extension("bad").exists());
}

#[tokio::test]
async fn a_damaged_snapshot_is_not_replaced_by_one_that_leaves_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let paths = two_snapshots(&dir).await;
    open_in(&dir).unwrap().log.purge(entry(7, "").log_id).await.unwrap();
    flip_a_bit(&paths[1]);
    let before = all_files(&dir.path().join("raft/snapshots"));
    let error = open_in(&dir).unwrap_err().to_string();
    assert!(error.contains(&paths[1].display().to_string()), "{error}");
    assert_eq!(all_files(&dir.path().join("raft/snapshots")), before);
}

/// The newest snapshot was corrupted after the log had been purged up to it. The older one was sent
/// to a lagging member and left a gap that no entry could fill.
#[tokio::test]
async fn a_snapshot_that_rots_while_the_node_runs_is_made_anew_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let paths = two_snapshots(&dir).await;
    let RaftStorage { mut log, mut machine, .. } = open_in(&dir).unwrap();
    log.purge(entry(9, "").log_id).await.unwrap();
    flip_a_bit(&paths[1]);
    for _ in 0..2 {
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(entry(9, "").log_id));
        let Listed(commands) = codec::unpack(&snapshot.snapshot.0).unwrap();
        assert_eq!(commands.len(), 10);
    }
    drop((log, machine));
    let mut machine = open_in(&dir).unwrap().machine;
    assert_eq!(machine.applied_state().await.unwrap().0.map(|id| id.index), Some(9));
}

/// Entries that only a corrupt snapshot covered were treated as covered.
#[tokio::test]
async fn a_snapshot_that_was_set_aside_covers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    flip_a_bit(&two_snapshots(&dir).await[1]);
    let RaftStorage { mut log, machine: _machine, .. } = open_in(&dir).unwrap();
    let purge = timeout(GRACE, log.purge(entry(9, "").log_id)).await;
    assert!(purge.is_err(), "the log would begin after a gap");
    log.purge(entry(4, "").log_id).await.unwrap();
}

/// A deposed leader's tasks may still be reading. Entries truncated under them were reported as
/// corruption, and the operator was advised to wipe the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_while_the_log_is_cut_off_and_purged_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let RaftStorage { mut log, .. } = open_in(&dir).unwrap();
    log = log.with_all_covered();
    let (reader, stop) = (log.get_log_reader().await, Arc::new(AtomicBool::new(false)));
    let mut readers = JoinSet::new();
    for from in [0, 3, 6] {
        let (mut reader, stop) = (reader.clone(), Arc::clone(&stop));
        readers.spawn(async move {
            let mut read = 0;
            while !stop.load(Ordering::Relaxed) {
                let entries = reader.limited_get_log_entries(from, u64::MAX).await.unwrap();
                assert!(entries.is_sorted_by_key(|entry| entry.log_id.index));
                read += entries.len();
                tokio::task::yield_now().await;
            }
            read
        });
    }
    // Larger than the cache, so that the disk is read.
    let long = "x".repeat(200 << 10);
    for round in 0..12 {
        let begin = round * 4;
        let entries = (begin..begin + 12).map(|index| entry(index, long.as_str()));
        log.blocking_append(entries).await.unwrap();
        log.truncate(entry(begin + 6, "").log_id).await.unwrap();
        log.purge(entry(begin + 3, "").log_id).await.unwrap();
        log.truncate(entry(begin + 4, "").log_id).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(readers.join_all().await.iter().all(|read| *read > 0));
}

/// Creates a lagging store with entries 0 to 4, and a leader's snapshot of 0 to 9.
async fn lagging(
    dir: &tempfile::TempDir,
) -> (RaftStorage<Config, Listed>, SnapshotMeta, SnapshotBody) {
    let mut opened = open_in(dir).unwrap();
    opened.log.blocking_append((0..5).map(|index| entry(index, "old"))).await.unwrap();
    let leader = tempfile::tempdir().unwrap();
    let mut machine = open_in(&leader).unwrap().machine.without_log();
    machine.apply((0..10).map(|index| entry(index, "new"))).await.unwrap();
    let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    (opened, built.meta, *built.snapshot)
}

/// openraft purges the log while another task installs the snapshot. A node that lost power in
/// between had neither, and never started again.
#[tokio::test]
async fn a_log_is_purged_only_when_the_snapshot_that_covers_it_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (RaftStorage { mut log, mut machine, .. }, meta, body) = lagging(&dir).await;
    let mut purge = Box::pin(log.purge(entry(9, "").log_id));
    assert!(timeout(GRACE, &mut purge).await.is_err(), "no snapshot covers the purged entries");
    let cut = tempfile::tempdir().unwrap();
    copy(&dir.path().join("raft"), &cut.path().join("raft"));
    assert_eq!(open_in(&cut).unwrap().log.purged_index(), None);

    machine.install_snapshot(&meta, Box::new(body)).await.unwrap();
    purge.await.unwrap();
    drop((log, machine));
    let RaftStorage { log, mut machine, .. } = open_in(&dir).unwrap();
    assert_eq!(log.purged_index(), Some(9));
    assert_eq!(machine.applied_state().await.unwrap().0.map(|id| id.index), Some(9));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_installed_leaves_the_log_and_stops_raft() {
    let dir = tempfile::tempdir().unwrap();
    let (RaftStorage { mut log, mut machine, .. }, meta, _) = lagging(&dir).await;
    let nonsense = Box::new(SnapshotBody(vec![0xc1].into()));
    let (purged, installed) =
        tokio::join!(log.purge(entry(9, "").log_id), machine.install_snapshot(&meta, nonsense));
    assert!(installed.is_err());
    let error = purged.unwrap_err().to_string();
    assert!(error.contains("not covered by a snapshot") && error.contains("unreadable"), "{error}");
    drop((log, machine));
    let log = open_in(&dir).unwrap().log;
    assert_eq!(log.purged_index(), None);
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_store_that_went_back_in_time_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_in(&dir).unwrap());
    let (data, kept) = (dir.path().join("raft/data"), dir.path().join("kept"));
    copy(&data, &kept);
    open_in(&dir).unwrap().log.save_vote(&Vote::new(3, 1)).await.unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    let error = open_in(&dir).unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::RolledBack { .. })), "{error}");
}

#[test]
fn a_store_that_was_made_and_is_gone_is_refused() {
    for part in ["", "store.json", "mark", "data"] {
        let dir = tempfile::tempdir().unwrap();
        let raft = dir.path().join("raft");
        assert!(matches!(
            require_existing(&raft),
            Err(OpenError::Directory(DirectoryError::Missing { .. }))
        ));
        create(&raft, &identity(), SLED).unwrap();
        require_existing(&raft).unwrap();
        let lost = if part.is_empty() { raft.clone() } else { raft.join(part) };
        if lost.is_dir() {
            fs::remove_dir_all(&lost).unwrap();
        } else {
            fs::remove_file(&lost).unwrap();
        }
        let refused = require_existing(&raft).unwrap_err().to_string();
        assert!(refused.contains("is gone") && refused.contains("re-initialised"), "{refused}");
    }
}
