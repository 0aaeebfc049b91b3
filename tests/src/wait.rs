//! Waiting for a named condition.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Polls `look` until it gives a value; fails after `limit` with what was waited for and what was
/// seen last.
pub fn until<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() > limit => {
                bail!("waited {limit:?} for {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Watches for `span` that `look` never reports a violation.
pub fn always(
    what: &str,
    span: Duration,
    mut look: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = look() {
            bail!("{what} did not hold for {span:?}: {seen}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
