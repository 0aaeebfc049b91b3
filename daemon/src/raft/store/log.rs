//! openraft's log and vote over a [`Writer`].

use std::collections::Bound;
use std::fmt::Debug;
use std::ops::{Range, RangeBounds};
use std::sync::{Arc, RwLock};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, Entry, LogId, LogState, NodeId, OptionalSend, RaftLogReader, RaftTypeConfig,
    StorageError, StorageIOError, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::cache::Cache;
use super::directory::Directory;
use super::reach::{Reach, Reached};
use super::{Change, StoreError, Table, Writer, codec};
use crate::fatal::chain;

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

/// What one read hands to replication at most, in bytes; never fewer entries than one.
const READ_BYTES: usize = 1 << 20;

/// The vote and the log of one node. Every write that openraft is told of is on disk, but for the
/// entries of a leader that is [ahead](Self::ahead_as).
#[derive(Debug)]
pub struct LogStore<C: RaftTypeConfig> {
    reader: LogReader<C>,
    snapshots: Reached,
    ahead: Option<Ahead<C::NodeId>>,
}

/// A node that may be ahead of its disk while it leads.
///
/// Its entries go to the others while its own disk is still writing them (Ongaro, "Consensus: Bridging
/// Theory and Practice", 10.2.1). openraft 0.9 knows only entries that it has been told are on disk,
/// so it is told early, and may count this node for a majority too soon. Nothing may come of that
/// until it is true: no node applies an entry that its own disk does not hold, and no leader tells
/// others that such a one is committed. Whatever is seen of an entry then rests on a majority of
/// disks. A leader that dies first has lost only what nobody was told of; it may not lead on in its
/// term, though, since others may hold what it lost.
#[derive(Debug)]
struct Ahead<N: NodeId> {
    me: N,
    /// The last vote that was saved.
    vote: Option<Vote<N>>,
}

impl<N: NodeId> Ahead<N> {
    /// Whether `entries` are this node's own, in the term that it leads now.
    fn proposed<C: RaftTypeConfig<NodeId = N>>(&self, entries: &[Entry<C>]) -> bool {
        let leads = |vote: &Vote<N>| {
            let leader = vote.leader_id();
            let is_mine = vote.is_committed() && leader.voted_for().as_ref() == Some(&self.me);
            is_mine && entries.iter().all(|entry| entry.log_id.leader_id == *leader)
        };
        self.vote.as_ref().is_some_and(leads)
    }
}

/// Reads the log for replication, from memory where it is recent.
#[derive(Debug)]
pub struct LogReader<C: RaftTypeConfig> {
    shared: Arc<Shared<C>>,
}

#[derive(Debug)]
struct Shared<C: RaftTypeConfig> {
    writer: Writer,
    known: Arc<Known<C>>,
}

/// What the writer's thread reports to. Never the writer itself: its thread cannot wait for its own end.
#[derive(Debug)]
struct Known<C: RaftTypeConfig> {
    view: RwLock<View<C>>,
    /// How far the log is on disk.
    flushed: watch::Sender<Reach>,
}

/// The log as openraft sees it: ahead of the disk by what is being written.
#[derive(Debug)]
struct View<C: RaftTypeConfig> {
    purged: Option<LogId<C::NodeId>>,
    last: Option<LogId<C::NodeId>>,
    /// Where the log begins.
    first: u64,
    recent: Cache<C::Entry>,
}

impl<C: RaftTypeConfig> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
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
        let upto = recent.durable().checked_sub(1);
        let flushed = watch::Sender::new(Reach { upto, failed: None });
        let view = RwLock::new(View { purged, last, first, recent });
        let known = Arc::new(Known { view, flushed });
        let reader = LogReader { shared: Arc::new(Shared { writer, known }) };
        Ok(Self { reader, snapshots, ahead: None })
    }

    /// From now on, what node `me` proposes while it leads is called done before it is on disk:
    /// whoever acts on it must wait for [`Self::flushed`].
    ///
    /// And a node that led when it was stopped does not lead on, as openraft 0.9 would let it: it may
    /// have lost entries that others hold, and would give their places in its term to others. So
    /// its vote is read back as the one that it gave itself, not as the one that a majority gave it.
    #[must_use]
    pub fn ahead_as(self, me: C::NodeId) -> Self {
        Self { ahead: Some(Ahead { me, vote: None }), ..self }
    }

    /// How far the log is on disk.
    pub fn flushed(&self) -> Reached {
        Reached::of(&self.reader.shared.known.flushed)
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
        let is_ahead = self.ahead.as_ref().is_some_and(|ahead| ahead.proposed(&entries));
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

impl<C: RaftTypeConfig> Known<C> {
    /// The lock is never held across an await, and nothing that is done under it can panic midway.
    fn view<T>(&self, look: impl FnOnce(&mut View<C>) -> T) -> T {
        let mut view = self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = look(&mut view);
        self.flushed.send_if_modified(|reach| {
            let upto = view.recent.durable().checked_sub(1);
            std::mem::replace(&mut reach.upto, upto) != upto
        });
        seen
    }

    fn fail(&self, why: String) {
        self.flushed.send_modify(|reach| {
            reach.failed.get_or_insert(why);
        });
    }
}

impl<C> LogReader<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    /// The entries of `range` that exist, until `limit` bytes are reached.
    fn entries(&self, range: Range<u64>, limit: usize) -> Result<Vec<Entry<C>>, StoreError> {
        let (range, recent) = self.shared.known.view(|view| {
            let range = range.start.max(view.first)..range.end.min(view.recent.end());
            let tail: Vec<_> =
                up_to(limit, view.recent.tail(&range).map(|(_, pair)| pair)).cloned().collect();
            let first_recent = view.recent.tail(&range).next().map_or(range.end, |(i, _)| i);
            (range.start..first_recent, tail)
        });
        if range.is_empty() {
            return Ok(recent.into_iter().map(|(entry, _)| entry).collect());
        }
        let keys = codec::keys(&range);
        let records = self.shared.writer.scan(Table::Log, &keys.start, &keys.end)?;
        let stored = codec::decode::<C>(&records).map_err(|why| self.shared.writer.corrupt(why))?;
        let wanted = range.end - range.start;
        if stored.len() as u64 != wanted || stored[0].0.log_id.index != range.start {
            let why = format!("entries {range:?} of the log are not all there");
            return Err(self.shared.writer.corrupt(why));
        }
        let all: Vec<_> = stored.into_iter().chain(recent).collect();
        Ok(up_to(limit, all.iter()).map(|(entry, _)| entry.clone()).collect())
    }
}

/// The first of `entries` that have `limit` bytes together, and at least one.
fn up_to<'a, E: 'a>(
    limit: usize,
    entries: impl Iterator<Item = &'a (E, usize)>,
) -> impl Iterator<Item = &'a (E, usize)> {
    let mut before = 0usize;
    entries.take_while(move |(_, len)| {
        let first = before == 0;
        before = before.saturating_add((*len).max(1));
        first || before <= limit
    })
}

impl<C> RaftLogReader<C> for LogReader<C>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    C::D: Clone,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start..end, usize::MAX).map_err(|e| StorageIOError::read_logs(said(&e)).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.entries(start..end, READ_BYTES).map_err(|e| StorageIOError::read_logs(said(&e)).into())
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
        if let Some(ahead) = &mut self.ahead {
            ahead.vote = Some(vote.clone());
        }
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        let vote: Option<Vote<C::NodeId>> =
            read(self.writer(), VOTE).map_err(|e| StorageIOError::read_vote(said(&e)))?;
        Ok(vote.map(|mut vote| {
            let voted_for = vote.leader_id().voted_for();
            let was_mine =
                self.ahead.as_ref().is_some_and(|ahead| voted_for.as_ref() == Some(&ahead.me));
            vote.committed &= !was_mine;
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
            Some(index) => self.reader.entries(index..log_id.index, usize::MAX).map_err(error)?,
            None => Vec::new(),
        };
        self.view(|view| {
            view.recent.truncate(log_id.index);
            view.last = before.first().map(|entry| entry.log_id.clone()).or(view.purged.clone());
        });
        // From the end, so that an engine that tore the batch would still leave no hole.
        let changes = self.deletions(log_id.index..end).map_err(error)?.into_iter().rev();
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
        changes.extend(self.deletions(start..end).map_err(error)?);
        self.view(|view| {
            view.recent.purge(end);
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
    fn deletions(&self, range: Range<u64>) -> Result<Vec<Change>, StoreError> {
        let keys = codec::keys(&range);
        let records = self.writer().scan(Table::Log, &keys.start, &keys.end)?;
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
