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
pub(crate) const MAX_SOURCES: usize = 1024;

/// Sources with recent failed proofs.
#[derive(Debug, Default)]
pub(crate) struct ProofFailures {
    /// Time at which each source's bucket is empty again (leaky bucket stored as a timestamp, as in
    /// GCRA).
    reset_at: BTreeMap<Source, Instant>,
}

impl ProofFailures {
    pub(crate) fn record(&mut self, source: Source, now: Instant) {
        self.reset_at.retain(|_, at| *at > now);
        if self.reset_at.len() >= MAX_SOURCES && !self.reset_at.contains_key(&source) {
            let soonest = self.reset_at.iter().min_by_key(|(_, at)| **at).map(|(s, _)| *s);
            if let Some(soonest) = soonest {
                self.reset_at.remove(&soonest);
            }
        }
        let at = self.reset_at.entry(source).or_insert(now);
        *at = (*at + REFILL).min(now + REFILL * BURST);
    }

    /// Returns true if the source must wait before its next attempt.
    pub(crate) fn is_blocked(&self, source: Source, now: Instant) -> bool {
        let limit = now + REFILL * (BURST - 1);
        self.reset_at.get(&source).is_some_and(|at| *at > limit)
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
    fn a_source_is_blocked_after_a_burst_and_recovers_with_time() {
        let mut proof_failures = ProofFailures::default();
        let t0 = Instant::now();
        for _ in 0..BURST {
            assert!(!proof_failures.is_blocked(from(1), t0));
            proof_failures.record(from(1), t0);
        }
        assert!(proof_failures.is_blocked(from(1), t0));
        assert!(!proof_failures.is_blocked(from(2), t0));
        assert!(!proof_failures.is_blocked(from(1), t0 + REFILL));
        proof_failures.record(from(1), t0 + REFILL);
        assert!(proof_failures.is_blocked(from(1), t0 + REFILL));
        assert!(!proof_failures.is_blocked(from(1), t0 + REFILL * 3));
    }

    #[test]
    fn a_thousand_sources_do_not_grow_the_table() {
        let mut proof_failures = ProofFailures::default();
        let t0 = Instant::now();
        for host in 0..100_000 {
            proof_failures.record(from(host), t0);
        }
        assert_eq!(proof_failures.reset_at.len(), MAX_SOURCES);
        proof_failures.record(from(1), t0 + REFILL * 2 * BURST);
        assert_eq!(proof_failures.reset_at.len(), 1);
    }
}
