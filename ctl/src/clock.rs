//! The only clock access of this program, and the text form of times. Parses no argument.

use std::time::SystemTime;

use jiff::Timestamp;

/// Current wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the edge where the clock is read")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Formats a time as RFC 3339 in UTC. `None` for 0, which means "never" on the wire.
pub(crate) fn rfc3339(milliseconds: i64) -> Option<String> {
    if milliseconds == 0 {
        return None;
    }
    // A time outside the calendar's range is shown as a plain number.
    Some(
        Timestamp::from_millisecond(milliseconds)
            .map_or_else(|_| milliseconds.to_string(), |at| at.to_string()),
    )
}

/// Formats a span of time in its one or two largest units: `3d 4h`, `12s`, `0s`.
pub(crate) fn format_span(milliseconds: u64) -> String {
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

/// Formats a point in time (milliseconds since 1970) relative to `now`: `in 23h 59m`,
/// `2m 3s ago`.
pub(crate) fn format_relative(milliseconds: i64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let difference = i128::from(milliseconds) - i128::try_from(now).unwrap_or(i128::MAX);
    let length = format_span(u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX));
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
            assert_eq!(format_span(seconds * 1000), text);
        }
    }

    #[test]
    fn zero_is_never() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_000).as_deref(), Some("1970-01-01T00:00:01Z"));
    }
}
