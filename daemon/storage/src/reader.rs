//! In-memory state of the log, ahead of the disk, and its reader. Recent entries are read from
//! memory, others from disk on a thread that may block.

use std::collections::Bound;
use std::fmt::Debug;
use std::ops::{Range, RangeBounds};
use std::sync::{Arc, RwLock};

use openraft::{
    Entry, LogId, OptionalSend, RaftLogReader, RaftTypeConfig, StorageError, StorageIOError, Vote,
};
use tokio::sync::watch;

use super::cache::Cache;
use super::log::said;
use super::reach::Reach;
use super::{Pair, StoreError, Table, Writer, blocking, codec};

/// Size limit in bytes of one read for replication; a read returns at least one entry.
const READ_BYTES: usize = 1 << 20;

/// Entries, each with its length in bytes.
type Measured<C> = Vec<(Entry<C>, usize)>;

/// Log reader for replication.
#[derive(Debug)]
pub struct LogReader<C: RaftTypeConfig> {
    pub(super) shared: Arc<Shared<C>>,
}

#[derive(Debug)]
pub(super) struct Shared<C: RaftTypeConfig> {
    pub writer: Writer,
    pub known: Arc<Known<C>>,
}

/// State that the writer's thread updates. Never holds the writer itself: its thread cannot join
/// itself.
#[derive(Debug)]
pub(super) struct Known<C: RaftTypeConfig> {
    view: RwLock<View<C>>,
    /// Durable index of the log.
    pub flushed: watch::Sender<Reach>,
    /// Last vote saved by this process; `None` before the first.
    pub voted: watch::Sender<Option<Vote<C::NodeId>>>,
}

/// The log as openraft sees it: ahead of the disk by the entries being written.
#[derive(Debug)]
pub(super) struct View<C: RaftTypeConfig> {
    pub purged: Option<LogId<C::NodeId>>,
    pub last: Option<LogId<C::NodeId>>,
    /// First index of the log.
    pub first: u64,
    /// Number of truncations and purges so far.
    pub cuts: u64,
    pub recent: Cache<C::Entry>,
}

impl<C: RaftTypeConfig> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: RaftTypeConfig> Known<C> {
    pub(super) fn new(view: View<C>) -> Self {
        let upto = view.recent.durable().checked_sub(1);
        let flushed = watch::Sender::new(Reach { upto, failed: None });
        Self { view: RwLock::new(view), flushed, voted: watch::Sender::default() }
    }

    /// Runs `look` under the lock and publishes the durable index. The lock is never held across
    /// an await, and nothing under it can panic midway.
    pub(super) fn view<T>(&self, look: impl FnOnce(&mut View<C>) -> T) -> T {
        let mut view = self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = look(&mut view);
        self.flushed.send_if_modified(|reach| {
            let upto = view.recent.durable().checked_sub(1);
            std::mem::replace(&mut reach.upto, upto) != upto
        });
        seen
    }

    pub(super) fn fail(&self, why: String) {
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
    /// Returns the existing entries of `range`, up to `limit` bytes. Entries truncated or purged
    /// meanwhile are no corruption: a deposed leader's tasks may still be reading.
    pub(super) async fn entries(
        &self,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<Entry<C>>, StoreError> {
        loop {
            let (stored, recent, cuts) = self.parts(&range, limit);
            let mut all = if stored.is_empty() {
                Vec::new()
            } else {
                match self.stored(stored).await? {
                    Ok(stored) => stored,
                    Err(_) if self.shared.known.view(|view| view.cuts) != cuts => continue,
                    Err(why) => return Err(self.shared.writer.corrupt(why)),
                }
            };
            all.extend(recent);
            return Ok(up_to(limit, all.iter()).map(|(entry, _)| entry.clone()).collect());
        }
    }

    /// Splits `range`: the part to read from disk, the entries from memory, and the number of
    /// truncations and purges so far.
    fn parts(&self, range: &Range<u64>, limit: usize) -> (Range<u64>, Measured<C>, u64) {
        self.shared.known.view(|view| {
            let range = range.start.max(view.first)..range.end.min(view.recent.end());
            let tail: Vec<_> =
                up_to(limit, view.recent.tail(&range).map(|(_, pair)| pair)).cloned().collect();
            let first_recent = view.recent.tail(&range).next().map_or(range.end, |(i, _)| i);
            (range.start..first_recent, tail, view.cuts)
        })
    }

    /// Reads the entries of `range`, which must not be empty, from disk. The inner error is the
    /// reason why the stored records are invalid.
    async fn stored(&self, range: Range<u64>) -> Result<Result<Measured<C>, String>, StoreError> {
        let records = self.records(&range).await?;
        let stored = match codec::decode::<C>(&records) {
            Ok(stored) => stored,
            Err(why) => return Ok(Err(why)),
        };
        let first = stored.first().map(|(entry, _)| entry.log_id.index);
        if stored.len() as u64 != range.end - range.start || first != Some(range.start) {
            return Ok(Err(format!("log entries {range:?} are incomplete")));
        }
        Ok(Ok(stored))
    }

    /// Reads all records of the entries of `range` that are on disk.
    pub(super) async fn records(&self, range: &Range<u64>) -> Result<Vec<Pair>, StoreError> {
        let keys = codec::keys(range);
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.writer.scan(Table::Log, &keys.start, &keys.end)).await
    }
}

/// Takes entries up to `limit` bytes in total, and at least one.
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
        let read = self.entries(start..end, usize::MAX).await;
        read.map_err(|e| StorageIOError::read_logs(said(&e)).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        let read = self.entries(start..end, READ_BYTES).await;
        read.map_err(|e| StorageIOError::read_logs(said(&e)).into())
    }
}
