//! openraft's log and vote on top of a [`Writer`].

use std::fmt::Debug;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, Entry, LogId, LogState, OptionalSend, RaftLogReader, RaftTypeConfig, StorageError,
    StorageIOError, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::cache::LogCache;
use super::codec;
use super::memory::{InMemoryLog, SharedLog};
use super::reader::{LogInner, LogReader};
use crate::codec::{pack_record, unpack_record};
use crate::durable_index::DurableWatch;
use crate::engine::directory::StoreDirectory;
use crate::engine::{Change, DiskStall, Table, Writer};
use crate::error::{StoreError, to_any_error};
use muster_types::error::chain;

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// Vote and log of one node. Every write acknowledged to openraft is on disk, except the entries of
/// a leader that is [ahead](Self::ahead_as).
#[derive(Debug)]
pub struct LogStore<C: RaftTypeConfig> {
    reader: LogReader<C>,
    snapshots: DurableWatch,
    /// This node's id, if it may be [ahead](Self::ahead_as).
    ahead: Option<C::NodeId>,
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    /// Opens, reads and verifies the whole log. Later purges wait until `snapshots` cover them.
    pub(crate) fn open(
        directory: StoreDirectory,
        snapshots: DurableWatch,
    ) -> Result<Self, StoreError> {
        let writer = Writer::open(directory)?;
        let purged: Option<LogId<C::NodeId>> = read(&writer, PURGED)?;
        read::<Vote<C::NodeId>>(&writer, VOTE)?;
        let stored = codec::keys(&(0..u64::MAX));
        let records = writer.scan(Table::Log, &stored.start, &stored.end)?;
        let entries = codec::decode::<C>(&records).map_err(|why| writer.undecodable(why))?;
        let found = entries.first().map_or(0, |(entry, _)| entry.log_id.index);
        let first = purged.as_ref().map_or(found, |id| id.index + 1);
        let mut recent = LogCache::new(first);
        let mut last = purged.clone();
        for (entry, len) in entries {
            if entry.log_id.index != recent.end() {
                let why = format!(
                    "the log continues with entry {}, expected entry {}",
                    entry.log_id.index,
                    recent.end()
                );
                return Err(writer.corrupt(why));
            }
            last = Some(entry.log_id.clone());
            recent.push(entry, len);
            recent.set_durable(recent.end());
        }
        let log =
            Arc::new(SharedLog::new(InMemoryLog { purged, last, first, removals: 0, recent }));
        let reader = LogReader { inner: Arc::new(LogInner { writer, log }) };
        Ok(Self { reader, snapshots, ahead: None })
    }

    /// Lets node `me` be ahead of its disk while it leads: its own appends are acknowledged to
    /// openraft before they are on disk. Code that acts on an entry must wait for
    /// [`Self::flushed`].
    ///
    /// The leader's entries go to the followers while its own disk is still writing them (Ongaro,
    /// "Consensus: Bridging Theory and Practice", 10.2.1). openraft 0.9 replicates only entries
    /// that are reported as on disk. So they are reported early, and openraft may count this node
    /// for a majority too soon. That must have no effect until it is true: no node applies an entry
    /// that its own disk does not hold, and no leader announces such an entry as committed. So
    /// every visible effect of an entry rests on a majority of disks.
    ///
    /// A leader that crashes before the write loses only unacknowledged entries. But followers may
    /// hold them, and the restarted leader would assign their indices in its term to other entries.
    /// So a node that led when it stopped does not continue to lead, as openraft 0.9 would let it.
    /// Its vote is read back as its own vote for itself, not as one granted by a majority.
    #[must_use]
    pub fn ahead_as(self, me: C::NodeId) -> Self {
        Self { ahead: Some(me), ..self }
    }

    /// Reports whether this node may be ahead with `entries`: its own, in the term that it leads
    /// now.
    fn is_ahead_with(&self, entries: &[Entry<C>]) -> bool {
        let voted = self.reader.inner.log.voted.borrow();
        let leads = |vote: &Vote<C::NodeId>| {
            let leader = vote.leader_id();
            let is_mine = vote.is_committed() && leader.voted_for() == self.ahead;
            is_mine && entries.iter().all(|entry| entry.log_id.leader_id == *leader)
        };
        self.ahead.is_some() && voted.as_ref().is_some_and(leads)
    }

    /// Watch on the last saved vote.
    pub fn voted(&self) -> watch::Receiver<Option<Vote<C::NodeId>>> {
        self.reader.inner.log.voted.subscribe()
    }

    /// Watch on the durable index of the log.
    pub fn flushed(&self) -> DurableWatch {
        DurableWatch::new(&self.reader.inner.log.flushed)
    }

    /// Stall detector of this node's disk.
    pub fn stall(&self) -> DiskStall {
        self.writer().stall()
    }

    /// Index of the last purged entry; `None` if none was purged.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.with_log(|log| log.purged.as_ref().map(|id| id.index))
    }

    /// Purges without waiting for snapshots: openraft's suite builds none.
    #[cfg(test)]
    pub(crate) fn with_all_covered(self) -> Self {
        Self { snapshots: DurableWatch::unlimited(), ..self }
    }

    fn with_log<T>(&self, access: impl FnOnce(&mut InMemoryLog<C>) -> T) -> T {
        self.reader.inner.log.with_log(access)
    }

    fn writer(&self) -> &Writer {
        &self.reader.inner.writer
    }

    async fn append_encoded(
        &self,
        entries: Vec<Entry<C>>,
        flushed: LogFlushed<C>,
    ) -> Result<(), String> {
        let is_ahead = self.is_ahead_with(&entries);
        if is_ahead && let Some(why) = &self.reader.inner.log.flushed.borrow().failed {
            return Err(why.clone());
        }
        // Skip entries that a snapshot already covers.
        let covered = self.with_log(|log| log.purged.as_ref().map_or(0, |id| id.index + 1));
        let entries: Vec<_> = entries.into_iter().filter(|e| e.log_id.index >= covered).collect();
        let mut changes = Vec::new();
        let mut lengths = Vec::new();
        for entry in &entries {
            let encoded = codec::encode(entry)?;
            changes.extend(encoded.changes);
            lengths.push(encoded.len);
        }
        let end = self.with_log(|log| {
            if let (None, Some(entry)) = (&log.last, entries.first()) {
                log.first = entry.log_id.index;
                log.recent = LogCache::new(log.first);
            }
            for (entry, len) in entries.into_iter().zip(lengths) {
                if entry.log_id.index != log.recent.end() {
                    return Err(format!(
                        "log entry {} does not follow entry {}",
                        entry.log_id.index,
                        log.recent.end()
                    ));
                }
                log.last = Some(entry.log_id.clone());
                log.recent.push(entry, len);
            }
            Ok(log.recent.end())
        })?;
        let pending = PendingAppend { log: Arc::clone(&self.reader.inner.log), end: Some(end) };
        if is_ahead {
            self.writer().submit(changes, move |result| pending.complete(&result)).await;
            flushed.log_io_completed(Ok(()));
        } else {
            let done = move |result: Result<(), StoreError>| {
                pending.complete(&result);
                flushed.log_io_completed(result.map_err(|e| std::io::Error::other(chain(&e))));
            };
            self.writer().submit(changes, done).await;
        }
        Ok(())
    }
}

/// An append that is being written to disk.
struct PendingAppend<C: RaftTypeConfig> {
    log: Arc<SharedLog<C>>,
    /// End of the log after this append; `None` once its result is known.
    end: Option<u64>,
}

impl<C: RaftTypeConfig> PendingAppend<C> {
    fn complete(mut self, result: &Result<(), StoreError>) {
        let Some(end) = self.end.take() else { return };
        match result {
            Ok(()) => self.log.with_log(|log| log.recent.set_durable(end)),
            Err(error) => self.log.fail(chain(error)),
        }
    }
}

/// Fails the append if the writer ended without a result.
impl<C: RaftTypeConfig> Drop for PendingAppend<C> {
    fn drop(&mut self) {
        if self.end.take().is_some() {
            self.log.fail("the writer has ended".to_owned());
        }
    }
}

impl<C> RaftLogReader<C> for LogStore<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.reader.try_get_log_entries(range).await
    }
}

impl<C> RaftLogStorage<C> for LogStore<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        Ok(self.with_log(|log| LogState {
            last_purged_log_id: log.purged.clone(),
            last_log_id: log.last.clone(),
        }))
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let error = |e| StorageIOError::write_vote(to_any_error(&e));
        self.writer().write(vec![put(VOTE, vote).map_err(error)?]).await.map_err(error)?;
        self.reader.inner.log.voted.send_replace(Some(vote.clone()));
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        let vote: Option<Vote<C::NodeId>> =
            read(self.writer(), VOTE).map_err(|e| StorageIOError::read_vote(to_any_error(&e)))?;
        Ok(vote.map(|mut vote| {
            let voted_for = vote.leader_id().voted_for();
            vote.committed &= self.ahead.is_none() || voted_for != self.ahead;
            vote
        }))
    }

    /// Queues the write without waiting: a majority knows what is committed. The stored value only
    /// lets a restarted node apply entries before a leader contacts it. A synced write per commit
    /// would cost as much as the entry itself.
    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let change =
            put(COMMITTED, &committed).map_err(|e| StorageIOError::write(to_any_error(&e)))?;
        self.writer().write_lazily(vec![change]).await;
        Ok(())
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let committed = read::<Option<LogId<C::NodeId>>>(self.writer(), COMMITTED)
            .map_err(|e| StorageIOError::read(to_any_error(&e)))?;
        Ok(committed.flatten())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<C>,
    ) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        self.append_encoded(entries, callback)
            .await
            .map_err(|why| StorageIOError::write_logs(AnyError::error(why)).into())
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let error = |e: StoreError| StorageIOError::write_logs(to_any_error(&e));
        let end = self.with_log(|log| log.recent.end());
        self.wait_until_durable(end).await.map_err(error)?;
        let before = match log_id.index.checked_sub(1) {
            Some(index) => {
                let before = self.reader.entries(index..log_id.index, usize::MAX).await;
                before.map_err(error)?
            }
            None => Vec::new(),
        };
        self.with_log(|log| {
            log.recent.truncate(log_id.index);
            log.removals += 1;
            log.last = before.first().map(|entry| entry.log_id.clone()).or(log.purged.clone());
        });
        // From the end, so that even an engine that tears the batch leaves no gap.
        let changes = self.deletions(log_id.index..end).await.map_err(error)?.into_iter().rev();
        self.writer().write(changes.collect()).await.map_err(error)?;
        Ok(())
    }

    /// Waits for the snapshot that covers the purged entries. openraft purges while another task is
    /// still installing the leader's snapshot. A log purged before that snapshot is on disk could
    /// not be opened again.
    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let error = |e: StoreError| StorageIOError::write_logs(to_any_error(&e));
        self.wait_until_covered(log_id.index).await.map_err(error)?;
        let start = self.with_log(|log| log.first);
        let end = log_id.index + 1;
        self.wait_until_durable(end.min(self.with_log(|log| log.recent.end())))
            .await
            .map_err(error)?;
        let mut changes = vec![put(PURGED, &log_id).map_err(error)?];
        changes.extend(self.deletions(start..end).await.map_err(error)?);
        self.with_log(|log| {
            log.recent.purge(end);
            log.removals += 1;
            log.last = log.last.clone().max(Some(log_id.clone()));
            log.purged = Some(log_id);
            log.first = end;
        });
        self.writer().write(changes).await.map_err(error)?;
        Ok(())
    }
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    /// Waits until a snapshot on disk covers everything up to `index`.
    async fn wait_until_covered(&self, index: u64) -> Result<(), StoreError> {
        self.snapshots.try_wait_for(index).await.map_err(|why| {
            let what = format!("the log up to entry {index} is not covered by a snapshot: {why}");
            StoreError::Stopped(what)
        })
    }

    /// Waits until every entry before `end` is on disk.
    async fn wait_until_durable(&self, end: u64) -> Result<(), StoreError> {
        match end.checked_sub(1) {
            Some(last) => self.flushed().wait_for(last).await,
            None => Ok(()),
        }
    }

    /// Returns the changes that delete the entries in `range`, which must all be on disk.
    async fn deletions(&self, range: Range<u64>) -> Result<Vec<Change>, StoreError> {
        let records = self.reader.records(&range).await?;
        let delete = |(key, _)| Change::Delete { table: Table::Log, key };
        Ok(records.into_iter().map(delete).collect())
    }
}

fn put<T: Serialize>(key: &[u8], value: &T) -> Result<Change, StoreError> {
    let value = pack_record(value).map_err(StoreError::Stopped)?;
    Ok(Change::Put { table: Table::Meta, key: key.to_vec(), value })
}

fn read<T: DeserializeOwned>(writer: &Writer, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(bytes) = writer.get(Table::Meta, key)? else { return Ok(None) };
    let what = format!("the record {}", key.escape_ascii());
    unpack_record(&what, &bytes).map(Some).map_err(|error| writer.undecodable(error))
}
