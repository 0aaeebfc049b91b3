//! How far the log is on this node's own disk, for those who must not run ahead of it.
//!
//! A leader's entries go to the others while its own disk is still writing them (Ongaro,
//! "Consensus: Bridging Theory and Practice", 10.2.1). openraft 0.9 knows only entries that it has
//! been told are on disk, so it is told early, and may count this node for a majority too soon.
//! Nothing may come of that until it is true: no node applies an entry that its own disk does not
//! hold, and no leader tells others that such a one is committed. Whatever is seen of an entry then
//! rests on a majority of disks. A leader that dies first has lost only what nobody was told of; it
//! may not lead on in its term, though, since others may hold what it lost
//! ([`super::LogStore::ahead_as`]).

use tokio::sync::watch;

use super::StoreError;

/// Waits for the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Flushed(watch::Receiver<Progress>);

/// What the disk holds of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Every entry before this index is on disk.
    pub end: u64,
    /// Why nothing more will be.
    pub failed: Option<String>,
}

impl Flushed {
    pub(super) fn new(progress: watch::Receiver<Progress>) -> Self {
        Self(progress)
    }

    /// As if everything were on disk, for a state machine without a log.
    #[cfg(test)]
    pub(super) fn everything() -> Self {
        Self(watch::channel(Progress { end: u64::MAX, failed: None }).1)
    }

    /// Waits until the entry at `index`, and everything before it, is on disk. An error if it will
    /// never be.
    pub async fn reaches(&self, index: u64) -> Result<(), StoreError> {
        let mut progress = self.0.clone();
        let settled = progress.wait_for(|p| p.end > index || p.failed.is_some()).await;
        let why = match settled.as_deref() {
            Ok(progress) if progress.end > index => return Ok(()),
            Ok(progress) => progress.failed.clone().unwrap_or_default(),
            Err(_) => "the log is closed".to_owned(),
        };
        Err(StoreError::Stopped(why))
    }
}
