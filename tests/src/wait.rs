//! Waiting for a named condition.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(50);

/// Polls `probe` until it returns a value. On timeout the error holds the name of the condition and
/// the last observation.
pub fn until<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, S>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() > limit => {
                bail!("waited {limit:?} for {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Checks for the whole of `span` that `probe` reports no violation.
pub fn always(
    what: &str,
    span: Duration,
    mut probe: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = probe() {
            bail!("{what} did not hold for {span:?}: {seen}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
