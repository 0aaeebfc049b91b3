//! The only place where `musterd` reads the wall clock. Other code takes the time as an argument,
//! or calls this when it acts. Pure decisions never call it.

use std::time::{SystemTime, UNIX_EPOCH};

use muster_state::ClusterState;

/// Returns the wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the wall-clock time in milliseconds since 1970; 0 for a clock before that.
pub fn now_ms() -> i64 {
    millis(now())
}

/// Converts a time to milliseconds since 1970, the form of messages and the replicated state; 0 for
/// a time before that.
pub fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the current time in milliseconds, but never before the cluster's own time. A node whose
/// clock is behind must not accept a token that the cluster counts as expired.
pub fn cluster_now_ms(state: &ClusterState) -> i64 {
    now_ms().max(state.now_ms())
}
