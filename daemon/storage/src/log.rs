//! openraft's log and vote over a [`Writer`].

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

use super::cache::Cache;
use super::directory::Directory;
use super::reach::Reached;
use super::reader::{Known, LogReader, Shared, View};
use super::{Change, Stall, StoreError, Table, Writer, codec};
use muster_types::error::chain;

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// The vote and the log of one node. Every write that openraft is told of is on disk, but for the
/// entries of a leader that is [ahead](Self::ahead_as).
#[derive(Debug)]
pub struct LogStore<C: RaftTypeConfig> {
    reader: LogReader<C>,
    snapshots: Reached,
    /// This node, if it may be [ahead](Self::ahead_as).
    ahead: Option<C::NodeId>,
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    /// Reads and verifies the whole log. It forgets nothing that `snapshots` do not cover.
    pub(super) fn open(directory: Directory, snapshots: Reached) -> Result<Self, StoreError> {
        let writer = Writer::open(directory)?;
        let purged: Option<LogId<C::NodeId>> = read(&writer, PURGED)?;
        read::<Vote<C::NodeId>>(&writer, VOTE)?;
        let stored = codec::keys(&(0..u64::MAX));
        let records = writer.scan(Table::Log, &stored.start, &stored.end)?;
        let entries = codec::decode::<C>(&records).map_err(|why| writer.corrupt(why))?;
        let found = entries.first().map_or(0, |(entry, _)| entry.log_id.index);
        let first = purged.as_ref().map_or(found, |id| id.index + 1);
        let mut recent = Cache::new(first);
        let mut last = purged.clone();
        for (entry, len) in entries {
            if entry.log_id.index != recent.end() {
                let why = format!(
                    "the log continues with entry {} where {} should be",
                    entry.log_id.index,
                    recent.end()
                );
                return Err(writer.corrupt(why));
            }
            last = Some(entry.log_id.clone());
            recent.push(entry, len);
            recent.set_durable(recent.end());
        }
        let known = Arc::new(Known::new(View { purged, last, first, cuts: 0, recent }));
        let reader = LogReader { shared: Arc::new(Shared { writer, known }) };
        Ok(Self { reader, snapshots, ahead: None })
    }

    /// From now on node `me` may be ahead of its disk while it leads: what it proposes is called done
    /// before it is on disk, and whoever acts on it must wait for [`Self::flushed`].
    ///
    /// Its entries go to the others while its own disk is still writing them (Ongaro, "Consensus:
    /// Bridging Theory and Practice", 10.2.1). openraft 0.9 knows only entries that it has been told
    /// are on disk, so it is told early, and may count this node for a majority too soon. Nothing
    /// may come of that until it is true: no node applies an entry that its own disk does not hold,
    /// and no leader tells others that such a one is committed. Whatever is seen of an entry then
    /// rests on a majority of disks.
    ///
    /// A leader that dies first has lost only what nobody was told of; but others may hold it, and
    /// it would give the places of that in its term to other entries. So a node that led when it was
    /// stopped does not lead on, as openraft 0.9 would let it: its vote is read back as the one that
    /// it gave itself, not as the one that a majority gave it.
    #[must_use]
    pub fn ahead_as(self, me: C::NodeId) -> Self {
        Self { ahead: Some(me), ..self }
    }

    /// Whether `entries` are this node's own, in the term that it leads now, and it may be ahead.
    fn is_ahead_with(&self, entries: &[Entry<C>]) -> bool {
        let voted = self.reader.shared.known.voted.borrow();
        let leads = |vote: &Vote<C::NodeId>| {
            let leader = vote.leader_id();
            let is_mine = vote.is_committed() && leader.voted_for() == self.ahead;
            is_mine && entries.iter().all(|entry| entry.log_id.leader_id == *leader)
        };
        self.ahead.is_some() && voted.as_ref().is_some_and(leads)
    }

    /// The last vote that was saved.
    pub fn voted(&self) -> watch::Receiver<Option<Vote<C::NodeId>>> {
        self.reader.shared.known.voted.subscribe()
    }

    /// How far the log is on disk.
    pub fn flushed(&self) -> Reached {
        Reached::of(&self.reader.shared.known.flushed)
    }

    /// For how long this node's disk has been waited for.
    pub fn stall(&self) -> Stall {
        self.writer().stall()
    }

    /// The index of the last entry that was removed after a snapshot.
    pub(super) fn purged_index(&self) -> Option<u64> {
        self.view(|view| view.purged.as_ref().map(|id| id.index))
    }

    /// Purges as if a snapshot covered everything: openraft's suite makes none.
    #[cfg(test)]
    pub(super) fn with_all_covered(self) -> Self {
        Self { snapshots: Reached::everything(), ..self }
    }

    fn view<T>(&self, look: impl FnOnce(&mut View<C>) -> T) -> T {
        self.reader.shared.known.view(look)
    }

    fn writer(&self) -> &Writer {
        &self.reader.shared.writer
    }

    async fn append_encoded(
        &self,
        entries: Vec<Entry<C>>,
        flushed: LogFlushed<C>,
    ) -> Result<(), String> {
        let is_ahead = self.is_ahead_with(&entries);
        if is_ahead && let Some(why) = &self.reader.shared.known.flushed.borrow().failed {
            return Err(why.clone());
        }
        // What a snapshot covers is not kept again.
        let covered = self.view(|view| view.purged.as_ref().map_or(0, |id| id.index + 1));
        let entries: Vec<_> = entries.into_iter().filter(|e| e.log_id.index >= covered).collect();
        let mut changes = Vec::new();
        let mut lengths = Vec::new();
        for entry in &entries {
            let encoded = codec::encode(entry)?;
            changes.extend(encoded.changes);
            lengths.push(encoded.len);
        }
        let end = self.view(|view| {
            if let (None, Some(entry)) = (&view.last, entries.first()) {
                view.first = entry.log_id.index;
                view.recent = Cache::new(view.first);
            }
            for (entry, len) in entries.into_iter().zip(lengths) {
                if entry.log_id.index != view.recent.end() {
                    return Err(format!(
                        "log entry {} does not follow entry {}",
                        entry.log_id.index,
                        view.recent.end()
                    ));
                }
                view.last = Some(entry.log_id.clone());
                view.recent.push(entry, len);
            }
            Ok(view.recent.end())
        })?;
        let settling = Settling { known: Arc::clone(&self.reader.shared.known), end: Some(end) };
        if is_ahead {
            self.writer().submit(changes, move |result| settling.settle(&result)).await;
            flushed.log_io_completed(Ok(()));
        } else {
            let done = move |result: Result<(), StoreError>| {
                settling.settle(&result);
                flushed.log_io_completed(result.map_err(|e| std::io::Error::other(chain(&e))));
            };
            self.writer().submit(changes, done).await;
        }
        Ok(())
    }
}

/// An append that is on its way to the disk.
struct Settling<C: RaftTypeConfig> {
    known: Arc<Known<C>>,
    /// Where the log ends with it; none once its fate is known.
    end: Option<u64>,
}

impl<C: RaftTypeConfig> Settling<C> {
    fn settle(mut self, result: &Result<(), StoreError>) {
        let Some(end) = self.end.take() else { return };
        match result {
            Ok(()) => self.known.view(|view| view.recent.set_durable(end)),
            Err(error) => self.known.fail(chain(error)),
        }
    }
}

/// The writer died with it.
impl<C: RaftTypeConfig> Drop for Settling<C> {
    fn drop(&mut self) {
        if self.end.take().is_some() {
            self.known.fail("the writer has ended".to_owned());
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
        Ok(self.view(|view| LogState {
            last_purged_log_id: view.purged.clone(),
            last_log_id: view.last.clone(),
        }))
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let error = |e| StorageIOError::write_vote(said(&e));
        self.writer().write(vec![put(VOTE, vote).map_err(error)?]).await.map_err(error)?;
        self.reader.shared.known.voted.send_replace(Some(vote.clone()));
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        let vote: Option<Vote<C::NodeId>> =
            read(self.writer(), VOTE).map_err(|e| StorageIOError::read_vote(said(&e)))?;
        Ok(vote.map(|mut vote| {
            let voted_for = vote.leader_id().voted_for();
            vote.committed &= self.ahead.is_none() || voted_for != self.ahead;
            vote
        }))
    }

    /// Not waited for: what is committed is known to a majority, and the mark only lets a
    /// restarted node apply it before it hears from a leader. A write per commit would cost as
    /// much as the entry itself.
    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let change = put(COMMITTED, &committed).map_err(|e| StorageIOError::write(said(&e)))?;
        self.writer().write_lazily(vec![change]).await;
        Ok(())
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let committed = read::<Option<LogId<C::NodeId>>>(self.writer(), COMMITTED)
            .map_err(|e| StorageIOError::read(said(&e)))?;
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
        let error = |e: StoreError| StorageIOError::write_logs(said(&e));
        let end = self.view(|view| view.recent.end());
        self.on_disk(end).await.map_err(error)?;
        let before = match log_id.index.checked_sub(1) {
            Some(index) => {
                let before = self.reader.entries(index..log_id.index, usize::MAX).await;
                before.map_err(error)?
            }
            None => Vec::new(),
        };
        self.view(|view| {
            view.recent.truncate(log_id.index);
            view.cuts += 1;
            view.last = before.first().map(|entry| entry.log_id.clone()).or(view.purged.clone());
        });
        // From the end, so that an engine that tore the batch would still leave no hole.
        let changes = self.deletions(log_id.index..end).await.map_err(error)?.into_iter().rev();
        self.writer().write(changes.collect()).await.map_err(error)?;
        Ok(())
    }

    /// Waits for the snapshot that covers what is purged: openraft purges while a snapshot from the
    /// leader is still being installed, by another task, and a log that is gone before that
    /// snapshot is on disk cannot be opened again.
    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let error = |e: StoreError| StorageIOError::write_logs(said(&e));
        self.covered(log_id.index).await.map_err(error)?;
        let start = self.view(|view| view.first);
        let end = log_id.index + 1;
        self.on_disk(end.min(self.view(|view| view.recent.end()))).await.map_err(error)?;
        let mut changes = vec![put(PURGED, &log_id).map_err(error)?];
        changes.extend(self.deletions(start..end).await.map_err(error)?);
        self.view(|view| {
            view.recent.purge(end);
            view.cuts += 1;
            view.last = view.last.clone().max(Some(log_id.clone()));
            view.purged = Some(log_id);
            view.first = end;
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
    async fn covered(&self, index: u64) -> Result<(), StoreError> {
        self.snapshots.until(index).await.map_err(|why| {
            let what = format!("the log up to entry {index} is not covered by a snapshot: {why}");
            StoreError::Stopped(what)
        })
    }

    /// Waits until every entry before `end` is on disk.
    async fn on_disk(&self, end: u64) -> Result<(), StoreError> {
        match end.checked_sub(1) {
            Some(last) => self.flushed().reaches(last).await,
            None => Ok(()),
        }
    }

    /// Deletes every part of the entries in `range`, which are all on disk.
    async fn deletions(&self, range: Range<u64>) -> Result<Vec<Change>, StoreError> {
        let records = self.reader.records(&range).await?;
        let delete = |(key, _)| Change::Delete { table: Table::Log, key };
        Ok(records.into_iter().map(delete).collect())
    }
}

/// openraft shows an error without its causes, so they go into the text.
pub(super) fn said(error: &StoreError) -> AnyError {
    AnyError::error(chain(error))
}

fn put<T: Serialize>(key: &[u8], value: &T) -> Result<Change, StoreError> {
    let value = codec::pack(value).map_err(StoreError::Stopped)?;
    Ok(Change::Put { table: Table::Meta, key: key.to_vec(), value })
}

fn read<T: DeserializeOwned>(writer: &Writer, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(bytes) = writer.get(Table::Meta, key)? else { return Ok(None) };
    codec::unpack(&bytes)
        .map(Some)
        .map_err(|why| writer.corrupt(format!("{} cannot be read: {why}", key.escape_ascii())))
}
