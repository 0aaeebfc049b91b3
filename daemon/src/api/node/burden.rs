//! How much one member may ask of this node: a worker that was taken over must not fill the log with
//! its reports, nor have the same view made for it a thousand times over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_types::NodeId;

/// Reports that a member may make at once. It makes one when its addresses change, and repeats what
/// was not taken every few seconds.
pub(crate) const REPORTS: u32 = 10;

/// After which time one more is allowed.
pub(crate) const REPORT_AGAIN: Duration = Duration::from_secs(2);

/// Views that a member may watch at once. It watches one; those of its former lives end when their
/// sessions are found to be dead.
pub(crate) const WATCHES: usize = 8;

/// Reports made of late. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// When each member will have its whole allowance again. (A leaky bucket kept as a time.)
    whole_at: BTreeMap<NodeId, Instant>,
}

impl Reports {
    /// Whether this member may make a report now; notes it if so.
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

/// The views being watched, by member.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// One view being watched, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    watches: Watches,
    member: NodeId,
}

impl Watches {
    /// One more for this member, if it has not too many.
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
        assert_eq!(reports.whole_at.len(), 1, "who is quiet is forgotten");
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
