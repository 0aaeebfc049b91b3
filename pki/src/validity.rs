//! Certificate validity: whole seconds between 1970 and the year 9999.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 9999-12-31T23:59:59Z, the latest time that X.509 can encode (RFC 5280 section 4.1.2.5).
const LAST: u64 = 253_402_300_799;

/// Validity period of a certificate, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// The period from `backdate` before `now` until `lifetime` after it.
    pub(crate) fn new(now: SystemTime, backdate: Duration, lifetime: Duration) -> Self {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            not_before: whole_second(now.saturating_sub(backdate)),
            not_after: whole_second(now.saturating_add(lifetime)),
        }
    }

    pub(crate) fn from_unix(not_before: i64, not_after: i64) -> Self {
        let at = |seconds: i64| whole_second(Duration::from_secs(seconds.try_into().unwrap_or(0)));
        Self { not_before: at(not_before), not_after: at(not_after) }
    }

    pub(crate) fn contains_period(&self, other: &Self) -> bool {
        self.not_before <= other.not_before && other.not_after <= self.not_after
    }

    pub(crate) fn apply_to(&self, params: &mut rcgen::CertificateParams) {
        params.not_before = self.not_before.into();
        params.not_after = self.not_after.into();
    }
}

fn whole_second(since_epoch: Duration) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs().min(LAST))
}
