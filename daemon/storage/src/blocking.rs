//! Disk work outside the runtime's own threads. Starts no thread of its own.

use super::error::StoreError;

/// Runs `work` on a thread that may block on the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(StoreError::Stopped(format!("a task of the store failed: {e}"))))
}
