//! Wall-clock time and lengths of time in whole milliseconds, as the Raft log and messages carry
//! them. Never reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A wall-clock time in milliseconds since 1970 (UTC). Encoded as the bare number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(i64);

impl UnixMillis {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The number, as messages carry it.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time between `earlier` and `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        if self.0 <= earlier.0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.0.abs_diff(earlier.0))
    }

    /// The time `duration` later; the last representable one if that is out of range.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl From<SystemTime> for UnixMillis {
    /// Truncates to milliseconds. A time before 1970 becomes 0, one out of range the last
    /// representable one.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::default().saturating_add(since)
    }
}

/// A length of time in whole milliseconds. Encoded as the bare number, so a value never differs from
/// its encoded copy by a fraction of a millisecond.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DurationMillis(u64);

impl DurationMillis {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Whole milliseconds of a duration, as messages carry them; the largest number if out of range.
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_converted_whole_and_within_its_range() {
        let millis = |time: SystemTime| UnixMillis::from(time).as_millis();
        assert_eq!(millis(UNIX_EPOCH + Duration::from_micros(1_999)), 1);
        assert_eq!(millis(UNIX_EPOCH - Duration::from_secs(1)), 0);
        let last = UNIX_EPOCH.checked_add(Duration::from_secs(u64::MAX / 4));
        assert_eq!(last.map(millis), Some(i64::MAX));
    }

    #[test]
    fn differences_and_sums_stay_within_their_range() {
        let (low, high) = (UnixMillis(i64::MIN), UnixMillis(i64::MAX));
        assert_eq!(low.saturating_duration_since(high), Duration::ZERO);
        assert_eq!(high.saturating_duration_since(low), Duration::from_millis(u64::MAX));
        let (one, three) = (UnixMillis(1), UnixMillis(3));
        assert_eq!(three.saturating_duration_since(one), Duration::from_millis(2));
        assert_eq!(one.saturating_add(Duration::from_millis(2)), three);
        assert_eq!(three.saturating_add(Duration::MAX), high);
    }

    #[test]
    fn times_are_encoded_as_bare_numbers() {
        assert_eq!(serde_json::to_string(&UnixMillis(-7)).unwrap(), "-7");
        assert_eq!(serde_json::from_str::<UnixMillis>("7").unwrap(), UnixMillis(7));
        let minute = DurationMillis::from_millis(60_000);
        assert_eq!(serde_json::to_string(&minute).unwrap(), "60000");
        assert_eq!(serde_json::from_str::<DurationMillis>("60000").unwrap(), minute);
        assert_eq!(minute.as_duration(), Duration::from_mins(1));
    }
}
