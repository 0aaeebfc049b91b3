//! How far something on disk goes, the log or the snapshots, for those who must not run ahead of it.

use tokio::sync::watch;

use super::StoreError;

/// How far it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    /// Up to this entry everything is there.
    pub upto: Option<u64>,
    /// Why it will go no further.
    pub failed: Option<String>,
}

/// Waits for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reached(watch::Receiver<Reach>);

impl Reached {
    pub(super) fn of(reach: &watch::Sender<Reach>) -> Self {
        Self(reach.subscribe())
    }

    /// As if everything were there, for a log or a state machine that stands alone.
    #[cfg(any(test, feature = "testing"))]
    pub fn everything() -> Self {
        Self(watch::channel(Reach { upto: Some(u64::MAX), failed: None }).1)
    }

    /// Waits until the entry at `index`, and everything before it, is there. An error if it will
    /// never be.
    pub async fn reaches(&self, index: u64) -> Result<(), StoreError> {
        self.until(index).await.map_err(StoreError::Stopped)
    }

    /// As [`Self::reaches`], with the bare reason.
    pub(super) async fn until(&self, index: u64) -> Result<(), String> {
        let mut reach = self.0.clone();
        let settled = reach.wait_for(|r| r.upto >= Some(index) || r.failed.is_some()).await;
        match settled.as_deref() {
            Ok(reach) if reach.upto >= Some(index) => Ok(()),
            Ok(reach) => Err(reach.failed.clone().unwrap_or_default()),
            Err(_) => Err("whoever writes it has ended".to_owned()),
        }
    }
}
