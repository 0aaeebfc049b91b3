//! Durable index of the log or the snapshots, and a watch for callers that must not overtake it.

use tokio::sync::watch;

use super::StoreError;

/// Durable index.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    /// Everything up to this entry is durable; `None` if nothing is.
    pub upto: Option<u64>,
    /// Error after which the index will not advance; `None` while it can.
    pub failed: Option<String>,
}

/// Watch on a durable index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reached(watch::Receiver<Reach>);

impl Reached {
    pub(super) fn of(reach: &watch::Sender<Reach>) -> Self {
        Self(reach.subscribe())
    }

    /// A watch on which everything is durable, for a log or a state machine without the other.
    #[cfg(any(test, feature = "testing"))]
    pub fn everything() -> Self {
        Self(watch::channel(Reach { upto: Some(u64::MAX), failed: None }).1)
    }

    /// Waits until the entry at `index` and everything before it is durable. Fails if it never will
    /// be.
    pub async fn reaches(&self, index: u64) -> Result<(), StoreError> {
        self.until(index).await.map_err(StoreError::Stopped)
    }

    /// Like [`Self::reaches`], but returns the bare reason.
    pub(super) async fn until(&self, index: u64) -> Result<(), String> {
        let mut reach = self.0.clone();
        let settled = reach.wait_for(|r| r.upto >= Some(index) || r.failed.is_some()).await;
        match settled.as_deref() {
            Ok(reach) if reach.upto >= Some(index) => Ok(()),
            Ok(reach) => Err(reach.failed.clone().unwrap_or_default()),
            Err(_) => Err("its writer has ended".to_owned()),
        }
    }
}
