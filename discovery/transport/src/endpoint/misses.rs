//! Counts wrong proofs per source in a table of bounded size. Pure: the clock is an argument.
//!
//! A token has at least 128 bits, so nobody guesses it; the limit spares the audit log and the
//! processor from someone who tries.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::source::Source;

/// Wrong proofs that a source may make at once.
pub(crate) const BURST: u32 = 10;

/// After which time one more is allowed.
pub(crate) const REFILL: Duration = Duration::from_secs(1);

/// Sources remembered. When full, the one that is closest to being forgiven is forgotten.
pub(crate) const SOURCES: usize = 1024;

/// The sources that still have wrong proofs to their account.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    /// When each source will be forgiven everything. (A leaky bucket kept as a time.)
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

    /// Whether the source must wait before it may try again.
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
