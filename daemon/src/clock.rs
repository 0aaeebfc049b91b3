//! The only place where `musterd` reads the wall clock. Other code takes the time as an argument,
//! or calls this when it acts. Pure decisions never call it.

use std::time::SystemTime;

use muster_state::ClusterState;
use muster_types::UnixMillis;

/// Returns the wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the wall-clock time as the group's commands carry it.
pub fn now_millis() -> UnixMillis {
    now().into()
}

/// Returns the current time, but never before the cluster's own time. A node whose clock is behind
/// must not accept a token that the cluster counts as expired.
pub fn cluster_now(state: &ClusterState) -> UnixMillis {
    now_millis().max(state.now())
}
