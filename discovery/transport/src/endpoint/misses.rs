//! Rate limit on failed token proofs per source, in a table of bounded size. Pure: the clock is an
//! argument.
//!
//! A token has at least 128 bits and cannot be guessed. The limit protects the audit log and the
//! CPU from attempts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::source::Source;

/// Failed proofs that a source may make in a burst.
pub(crate) const BURST: u32 = 10;

/// Interval after which one more is allowed.
pub(crate) const REFILL: Duration = Duration::from_secs(1);

/// Number of sources tracked. When full, the source whose limit resets first is evicted.
pub(crate) const SOURCES: usize = 1024;

/// Sources with recent failed proofs.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    /// Time at which each source's bucket is empty again (leaky bucket stored as a timestamp, as in
    /// GCRA).
    forgiven_at: BTreeMap<Source, Instant>,
}

impl Misses {
    pub(crate) fn record(&mut self, source: Source, now: Instant) {
        self.forgiven_at.retain(|_, at| *at > now);
        if self.forgiven_at.len() >= SOURCES && !self.forgiven_at.contains_key(&source) {
            let soonest = self.forgiven_at.iter().min_by_key(|(_, at)| **at).map(|(s, _)| *s);
            if let Some(soonest) = soonest {
                self.forgiven_at.remove(&soonest);
            }
        }
        let at = self.forgiven_at.entry(source).or_insert(now);
        *at = (*at + REFILL).min(now + REFILL * BURST);
    }

    /// Returns true if the source must wait before its next attempt.
    pub(crate) fn is_barred(&self, source: Source, now: Instant) -> bool {
        let limit = now + REFILL * (BURST - 1);
        self.forgiven_at.get(&source).is_some_and(|at| *at > limit)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn from(host: u32) -> Source {
        Source::from(SocketAddr::from((Ipv4Addr::from(host), 1)))
    }

    #[test]
    fn a_source_is_barred_after_a_burst_and_forgiven_with_time() {
        let mut misses = Misses::default();
        let t0 = Instant::now();
        for _ in 0..BURST {
            assert!(!misses.is_barred(from(1), t0));
            misses.record(from(1), t0);
        }
        assert!(misses.is_barred(from(1), t0));
        assert!(!misses.is_barred(from(2), t0));
        assert!(!misses.is_barred(from(1), t0 + REFILL));
        misses.record(from(1), t0 + REFILL);
        assert!(misses.is_barred(from(1), t0 + REFILL));
        assert!(!misses.is_barred(from(1), t0 + REFILL * 3));
    }

    #[test]
    fn a_thousand_sources_do_not_grow_the_table() {
        let mut misses = Misses::default();
        let t0 = Instant::now();
        for host in 0..100_000 {
            misses.record(from(host), t0);
        }
        assert_eq!(misses.forgiven_at.len(), SOURCES);
        misses.record(from(1), t0 + REFILL * 2 * BURST);
        assert_eq!(misses.forgiven_at.len(), 1);
    }
}
