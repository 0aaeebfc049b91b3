//! Rate limits per member. A compromised worker must not fill the Raft log with reports or open
//! thousands of view streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_types::NodeId;

/// Maximum burst of reports of one member. A member reports when its addresses change, and repeats
/// a rejected report every few seconds.
pub(crate) const REPORT_BURST: u32 = 10;

/// Interval after which one more report is allowed.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of view streams of one member. A member needs one. Streams of its earlier
/// processes end when their sessions are found dead.
pub(crate) const MAX_STREAMS: usize = 8;

/// Token bucket for reports, per member. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct ReportLimiter {
    /// Time at which each member's bucket is full again (stored as a timestamp, as in GCRA).
    full_at: BTreeMap<NodeId, Instant>,
}

impl ReportLimiter {
    /// Returns true if this member may make a report now; counts it if so.
    pub(super) fn try_acquire(&mut self, member: NodeId, now: Instant) -> bool {
        self.full_at.retain(|_, at| *at > now);
        let at = self.full_at.get(&member).copied().unwrap_or(now) + REPORT_INTERVAL;
        let allowed = at <= now + REPORT_INTERVAL * REPORT_BURST;
        if allowed {
            self.full_at.insert(member, at);
        }
        allowed
    }
}

/// Number of open view streams, by member.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamLimiter(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// Permit for one view stream, released on drop.
#[derive(Debug)]
pub(super) struct StreamPermit {
    streams: StreamLimiter,
    member: NodeId,
}

impl StreamLimiter {
    /// Acquires a permit for this member. `None` if it has too many streams.
    pub(super) fn try_acquire(&self, member: NodeId) -> Option<StreamPermit> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = streams.entry(member).or_default();
        if *count >= MAX_STREAMS {
            return None;
        }
        *count += 1;
        Some(StreamPermit { streams: self.clone(), member })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut streams = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.member) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn a_member_that_reports_without_end_is_slowed_down_and_no_other_is() {
        let (mut limiter, t0) = (ReportLimiter::default(), Instant::now());
        let taken = |limiter: &mut ReportLimiter, at| {
            (0..1000).filter(|_| limiter.try_acquire(member(1), t0 + at)).count()
        };
        assert_eq!(taken(&mut limiter, Duration::ZERO), REPORT_BURST as usize);
        assert!(limiter.try_acquire(member(2), t0));
        assert_eq!(taken(&mut limiter, REPORT_INTERVAL), 1);
        assert_eq!(taken(&mut limiter, REPORT_INTERVAL * 3), 2);
        assert_eq!(taken(&mut limiter, REPORT_INTERVAL * 1000), REPORT_BURST as usize);
        assert_eq!(limiter.full_at.len(), 1, "an idle member is forgotten");
    }

    #[test]
    fn a_view_that_is_no_longer_watched_makes_room_for_another() {
        let streams = StreamLimiter::default();
        let mut permits: Vec<_> =
            (0..MAX_STREAMS).map(|_| streams.try_acquire(member(1)).unwrap()).collect();
        assert!(streams.try_acquire(member(1)).is_none());
        assert!(streams.try_acquire(member(2)).is_some());
        permits.pop();
        assert!(streams.try_acquire(member(1)).is_some());
        drop(permits);
        assert!(streams.0.lock().unwrap().is_empty());
    }
}
