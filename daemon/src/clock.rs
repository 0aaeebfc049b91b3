//! The only place where `musterd` reads the wall clock. Other code takes the time as an argument,
//! or calls this when it acts. Pure decisions never call it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970; 0 for a clock before that.
pub fn now_ms() -> u64 {
    millis(now())
}

/// `time` in milliseconds since 1970; 0 for a time before that.
pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
