//! Reader of the log for replication: recent entries from memory, others from disk on a thread that
//! may block. Changes nothing.

use std::collections::Bound;
use std::fmt::Debug;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;

use openraft::{Entry, OptionalSend, RaftLogReader, RaftTypeConfig, StorageError, StorageIOError};

use super::codec;
use super::memory::SharedLog;
use crate::blocking::blocking;
use crate::codec::DecodeError;
use crate::engine::{KeyValue, Table, Writer};
use crate::error::{StoreError, to_any_error};

/// Size limit in bytes of one read for replication; a read returns at least one entry.
const MAX_READ_BYTES: usize = 1 << 20;

/// Entries, each with its length in bytes.
type SizedEntries<C> = Vec<(Entry<C>, usize)>;

/// Log reader for replication.
#[derive(Debug)]
pub struct LogReader<C: RaftTypeConfig> {
    pub(super) inner: Arc<LogInner<C>>,
}

#[derive(Debug)]
pub(super) struct LogInner<C: RaftTypeConfig> {
    pub writer: Writer,
    pub log: Arc<SharedLog<C>>,
}

impl<C: RaftTypeConfig> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
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
            let (stored, recent, removals) = self.split_range(&range, limit);
            let mut all = if stored.is_empty() {
                Vec::new()
            } else {
                match self.read_stored(stored).await? {
                    Ok(stored) => stored,
                    Err(_) if self.inner.log.with_log(|log| log.removals) != removals => continue,
                    Err(why) => return Err(self.inner.writer.undecodable(why)),
                }
            };
            all.extend(recent);
            return Ok(take_bytes(limit, all.iter()).map(|(entry, _)| entry.clone()).collect());
        }
    }

    /// Splits `range`: the part to read from disk, the entries from memory, and the number of
    /// truncations and purges so far.
    fn split_range(&self, range: &Range<u64>, limit: usize) -> (Range<u64>, SizedEntries<C>, u64) {
        self.inner.log.with_log(|log| {
            let range = range.start.max(log.first)..range.end.min(log.recent.end());
            let tail: Vec<_> =
                take_bytes(limit, log.recent.tail(&range).map(|(_, pair)| pair)).cloned().collect();
            let first_recent = log.recent.tail(&range).next().map_or(range.end, |(i, _)| i);
            (range.start..first_recent, tail, log.removals)
        })
    }

    /// Reads the entries of `range`, which must not be empty, from disk. The inner error is the
    /// reason why the stored records are invalid.
    async fn read_stored(
        &self,
        range: Range<u64>,
    ) -> Result<Result<SizedEntries<C>, DecodeError>, StoreError> {
        let records = self.records(&range).await?;
        let stored = match codec::decode::<C>(&records) {
            Ok(stored) => stored,
            Err(why) => return Ok(Err(why)),
        };
        let first = stored.first().map(|(entry, _)| entry.log_id.index);
        if stored.len() as u64 != range.end - range.start || first != Some(range.start) {
            return Ok(Err(format!("log entries {range:?} are incomplete").into()));
        }
        Ok(Ok(stored))
    }

    /// Reads all records of the entries of `range` that are on disk.
    pub(super) async fn records(&self, range: &Range<u64>) -> Result<Vec<KeyValue>, StoreError> {
        let keys = codec::keys(range);
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.writer.scan(Table::Log, &keys.start, &keys.end)).await
    }
}

/// Takes entries up to `limit` bytes in total, and at least one.
fn take_bytes<'a, E: 'a>(
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
        read.map_err(|e| StorageIOError::read_logs(to_any_error(&e)).into())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        let read = self.entries(start..end, MAX_READ_BYTES).await;
        read.map_err(|e| StorageIOError::read_logs(to_any_error(&e)).into())
    }
}
