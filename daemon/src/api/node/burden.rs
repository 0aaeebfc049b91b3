//! Rate limits per member. A compromised worker must not fill the Raft log with reports or open
//! thousands of view streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_types::NodeId;

/// Maximum burst of reports of one member. A member reports when its addresses change, and repeats
/// a rejected report every few seconds.
pub(crate) const REPORTS: u32 = 10;

/// Interval after which one more report is allowed.
pub(crate) const REPORT_AGAIN: Duration = Duration::from_secs(2);

/// Maximum number of view streams of one member. A member needs one. Streams of its earlier
/// processes end when their sessions are found dead.
pub(crate) const WATCHES: usize = 8;

/// Token bucket for reports, per member. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Time at which each member's bucket is full again (stored as a timestamp, as in GCRA).
    whole_at: BTreeMap<NodeId, Instant>,
}

impl Reports {
    /// Returns true if this member may make a report now; counts it if so.
    pub(super) fn may(&mut self, member: NodeId, now: Instant) -> bool {
        self.whole_at.retain(|_, at| *at > now);
        let at = self.whole_at.get(&member).copied().unwrap_or(now) + REPORT_AGAIN;
        let may = at <= now + REPORT_AGAIN * REPORTS;
        if may {
            self.whole_at.insert(member, at);
        }
        may
    }
}

/// Number of open view streams, by member.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// Permit for one view stream, released on drop.
#[derive(Debug)]
pub(super) struct Watch {
    watches: Watches,
    member: NodeId,
}

impl Watches {
    /// Acquires a permit for this member. `None` if it has too many streams.
    pub(super) fn begin(&self, member: NodeId) -> Option<Watch> {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = watches.entry(member).or_default();
        if *count >= WATCHES {
            return None;
        }
        *count += 1;
        Some(Watch { watches: self.clone(), member })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.watches.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watches.get_mut(&self.member) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.member);
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
        let (mut reports, t0) = (Reports::default(), Instant::now());
        let taken = |reports: &mut Reports, at| {
            (0..1000).filter(|_| reports.may(member(1), t0 + at)).count()
        };
        assert_eq!(taken(&mut reports, Duration::ZERO), REPORTS as usize);
        assert!(reports.may(member(2), t0));
        assert_eq!(taken(&mut reports, REPORT_AGAIN), 1);
        assert_eq!(taken(&mut reports, REPORT_AGAIN * 3), 2);
        assert_eq!(taken(&mut reports, REPORT_AGAIN * 1000), REPORTS as usize);
        assert_eq!(reports.whole_at.len(), 1, "an idle member is forgotten");
    }

    #[test]
    fn a_view_that_is_no_longer_watched_makes_room_for_another() {
        let watches = Watches::default();
        let mut held: Vec<_> = (0..WATCHES).map(|_| watches.begin(member(1)).unwrap()).collect();
        assert!(watches.begin(member(1)).is_none());
        assert!(watches.begin(member(2)).is_some());
        held.pop();
        assert!(watches.begin(member(1)).is_some());
        drop(held);
        assert!(watches.0.lock().unwrap().is_empty());
    }
}
