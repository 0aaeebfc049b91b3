//! Clock, random delays and the timeouts of a promise. Decides nothing.

use std::time::{Duration, Instant};

/// Timeout of an unsettled promise, after which this node inquires of the other founders. Up to
/// as much again is added at random, so that they do not all inquire at once.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The same timeout for a promise found in the store at the start.
pub(super) const RESTART_SETTLE_TIMEOUT: Duration = Duration::from_millis(300);

/// Returns the runtime's time, which tests can pause.
pub(super) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns a random duration up to `most`.
pub(super) fn random_up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..=1.0))
}

/// Timeout of a promise; doubles with each of the first three abandoned births.
pub(super) fn settle_timeout(abandoned_births: u32) -> Duration {
    let most = SETTLE_TIMEOUT * (1 << abandoned_births.min(3));
    most + random_up_to(most)
}

/// Timeout of a promise made before the start.
pub(super) fn restart_settle_timeout() -> Duration {
    RESTART_SETTLE_TIMEOUT + random_up_to(RESTART_SETTLE_TIMEOUT)
}
