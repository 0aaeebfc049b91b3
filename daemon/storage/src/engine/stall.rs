//! Disk stall detection: duration of the commit in progress. A disk that hangs returns no error,
//! and openraft waits for it silently.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Start time of the commit in progress. Shared by the writer and the task that watches this node's
/// leadership.
#[derive(Debug, Clone, Default)]
pub struct DiskStall(Arc<Mutex<Option<Instant>>>);

impl DiskStall {
    /// Runs `work`, which blocks on the disk, and records when it started.
    pub(super) fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let done = work();
        self.set(None);
        done
    }

    /// Returns the duration of the commit in progress; zero if there is none.
    pub fn elapsed(&self) -> Duration {
        let begun = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    fn set(&self, begun: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    }
}
