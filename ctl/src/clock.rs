//! The one place where this program reads the clock, and how times are written.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the edge where the clock is read")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC; `None` for 0, which stands for "never" on the wire.
pub(crate) fn rfc3339(milliseconds: i64) -> Option<String> {
    if milliseconds == 0 {
        return None;
    }
    // What does not fit into a calendar is shown as the number it is.
    Some(
        Timestamp::from_millisecond(milliseconds)
            .map_or_else(|_| milliseconds.to_string(), |at| at.to_string()),
    )
}

/// A duration as people write it: `750ms`, `10s`, `5m`, `1h 30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 10s, 5m or 1h");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).ok().filter(|d| !d.is_zero()).ok_or_else(wrong)
}

/// A span of time in its one or two largest units: `3d 4h`, `12s`, `0s`.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m")];
    let mut parts: Vec<String> =
        units.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if parts.len() < 2 && (!seconds.is_multiple_of(60) || parts.is_empty()) {
        parts.push(format!("{}s", seconds % 60));
    }
    parts.truncate(2);
    parts.join(" ")
}

/// How far a point in time (milliseconds since 1970) lies ahead of `now`: `in 23h 59m`,
/// `2m 3s ago`.
pub(crate) fn from_now(milliseconds: i64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let difference = i128::from(milliseconds) - i128::try_from(now).unwrap_or(i128::MAX);
    let length = span(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
    if difference >= 0 { format!("in {length}") } else { format!("{length} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (90_000, "1d 1h")]
        {
            assert_eq!(span(seconds * 1000), text);
        }
    }

    #[test]
    fn durations_are_positive_and_have_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("750ms"), Ok(Duration::from_millis(750)));
        for bad in ["", "5", "-5s", "0s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zero_is_never() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_000).as_deref(), Some("1970-01-01T00:00:01Z"));
    }
}
