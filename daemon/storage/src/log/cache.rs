//! Cache of the log's recent entries: those that followers need next, and those not yet on disk.

use std::collections::VecDeque;
use std::ops::Range;

/// Size limit in bytes of encoded entries; does not limit entries that are not on disk yet.
const MAX_CACHED_BYTES: usize = 1 << 20;

/// The entries `start..end` of the log. Always contains those that are not on disk.
#[derive(Debug)]
pub(super) struct LogCache<E> {
    entries: VecDeque<(E, usize)>,
    start: u64,
    bytes: usize,
    /// Entries before this index are on disk.
    durable: u64,
}

impl<E> LogCache<E> {
    /// Empty cache of a log whose next entry is `end`.
    pub(super) fn new(end: u64) -> Self {
        Self { entries: VecDeque::new(), start: end, bytes: 0, durable: end }
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// Index before which everything is on disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Adds the entry `end()`, which has `len` bytes.
    pub(super) fn push(&mut self, entry: E, len: usize) {
        self.bytes += len;
        self.entries.push_back((entry, len));
        self.shrink();
    }

    /// Records that everything before `index` is on disk.
    pub(super) fn set_durable(&mut self, index: u64) {
        self.durable = self.durable.max(index).min(self.end());
        self.shrink();
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        self.durable = self.durable.min(index);
        if index <= self.start {
            *self = Self::new(index);
        }
        while self.end() > index {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, len)| len);
        }
    }

    /// Drops the entries before `index`; a log that ended before it now ends there.
    pub(super) fn purge(&mut self, index: u64) {
        if index >= self.end() {
            *self = Self::new(index);
        }
        while self.start < index {
            self.pop_front();
        }
    }

    /// The cached entries of `range`, which are its tail, with their lengths.
    pub(super) fn tail(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &(E, usize))> {
        let from = range.start.max(self.start);
        let skip = usize::try_from(from - self.start).unwrap_or(usize::MAX);
        (from..range.end).zip(self.entries.iter().skip(skip))
    }

    fn shrink(&mut self) {
        while self.bytes > MAX_CACHED_BYTES && self.start < self.durable {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, len)) = self.entries.pop_front() {
            self.bytes -= len;
            self.start += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(cache: &LogCache<u64>) -> Vec<u64> {
        cache
            .tail(&(0..u64::MAX))
            .map(|(index, (entry, _))| {
                assert_eq!(index, *entry);
                index
            })
            .collect()
    }

    #[test]
    fn what_is_not_on_disk_is_never_dropped() {
        let mut cache = LogCache::new(1);
        for index in 1..=5 {
            cache.push(index, MAX_CACHED_BYTES);
        }
        assert_eq!(held(&cache), [1, 2, 3, 4, 5]);
        cache.set_durable(4);
        assert_eq!(held(&cache), [4, 5]);
        cache.set_durable(6);
        assert_eq!(held(&cache), [5]);
    }

    #[test]
    fn truncating_and_purging_keep_the_bounds() {
        let mut cache = LogCache::new(1);
        for index in 1..=9 {
            cache.push(index, 1);
        }
        cache.truncate(7);
        assert_eq!((held(&cache).len(), cache.end()), (6, 7));
        cache.purge(3);
        assert_eq!(held(&cache), [3, 4, 5, 6]);
        cache.truncate(2);
        assert_eq!((held(&cache).len(), cache.end()), (0, 2));
        cache.purge(20);
        assert_eq!((held(&cache).len(), cache.end()), (0, 20));
    }
}
