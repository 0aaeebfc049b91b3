//! The log as this process sees it: ahead of the disk by the entries being written. Never reads or
//! writes the disk.

use std::sync::RwLock;

use openraft::{LogId, RaftTypeConfig, Vote};
use tokio::sync::watch;

use super::cache::LogCache;
use crate::durable_index::DurableIndex;

/// State that the writer's thread updates. Never holds the writer itself: its thread cannot join
/// itself.
#[derive(Debug)]
pub(super) struct SharedLog<C: RaftTypeConfig> {
    log: RwLock<InMemoryLog<C>>,
    /// Durable index of the log.
    pub flushed: watch::Sender<DurableIndex>,
    /// Last vote saved by this process; `None` before the first.
    pub voted: watch::Sender<Option<Vote<C::NodeId>>>,
}

/// The log as openraft sees it: ahead of the disk by the entries being written.
#[derive(Debug)]
pub(super) struct InMemoryLog<C: RaftTypeConfig> {
    pub purged: Option<LogId<C::NodeId>>,
    pub last: Option<LogId<C::NodeId>>,
    /// First index of the log.
    pub first: u64,
    /// Number of truncations and purges so far.
    pub removals: u64,
    pub recent: LogCache<C::Entry>,
}

impl<C: RaftTypeConfig> SharedLog<C> {
    pub(super) fn new(log: InMemoryLog<C>) -> Self {
        let index = log.recent.durable().checked_sub(1);
        let flushed = watch::Sender::new(DurableIndex { index, failed: None });
        Self { log: RwLock::new(log), flushed, voted: watch::Sender::default() }
    }

    /// Runs `access` under the lock and publishes the durable index. The lock is never held across
    /// an await, and nothing under it can panic midway.
    pub(super) fn with_log<T>(&self, access: impl FnOnce(&mut InMemoryLog<C>) -> T) -> T {
        let mut log = self.log.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = access(&mut log);
        self.flushed.send_if_modified(|durable| {
            let index = log.recent.durable().checked_sub(1);
            std::mem::replace(&mut durable.index, index) != index
        });
        result
    }

    pub(super) fn fail(&self, why: String) {
        self.flushed.send_modify(|durable| {
            durable.failed.get_or_insert(why);
        });
    }
}
