//! Durable index of the log or the snapshots, and a watch for callers that must not overtake it.

use tokio::sync::watch;

use super::error::StoreError;

/// Durable index.
#[derive(Debug, Clone, Default)]
pub(crate) struct DurableIndex {
    /// Everything up to this entry is durable; `None` if nothing is.
    pub index: Option<u64>,
    /// Error after which the index will not advance; `None` while it can.
    pub failed: Option<String>,
}

/// Watch on a durable index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DurableWatch(watch::Receiver<DurableIndex>);

impl DurableWatch {
    pub(crate) fn new(durable: &watch::Sender<DurableIndex>) -> Self {
        Self(durable.subscribe())
    }

    /// A watch on which everything is durable, for a log or a state machine without the other.
    #[cfg(any(test, feature = "testing"))]
    pub fn unlimited() -> Self {
        Self(watch::channel(DurableIndex { index: Some(u64::MAX), failed: None }).1)
    }

    /// Waits until the entry at `index` and everything before it is durable. Fails if it never will
    /// be.
    pub async fn wait_for(&self, index: u64) -> Result<(), StoreError> {
        self.try_wait_for(index).await.map_err(StoreError::Stopped)
    }

    /// Like [`Self::wait_for`], but returns the bare reason.
    pub(crate) async fn try_wait_for(&self, index: u64) -> Result<(), String> {
        let mut durable = self.0.clone();
        let result = durable.wait_for(|r| r.index >= Some(index) || r.failed.is_some()).await;
        match result.as_deref() {
            Ok(durable) if durable.index >= Some(index) => Ok(()),
            Ok(durable) => Err(durable.failed.clone().unwrap_or_default()),
            Err(_) => Err("its writer has ended".to_owned()),
        }
    }
}
