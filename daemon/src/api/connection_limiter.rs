//! Limits concurrent unauthenticated TCP connections, in total and per source, so that one host
//! cannot lock operators out. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use muster_transport::limits::Source;

/// Open connections that are not authenticated yet.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    max_total: usize,
    max_per_source: usize,
    total: usize,
    /// Open connections per source. Only sources with a connection have an entry.
    sources: BTreeMap<Source, usize>,
}

impl ConnectionLimiter {
    pub(super) fn new(max_total: usize, max_per_source: usize) -> Self {
        Self { max_total, max_per_source, total: 0, sources: BTreeMap::new() }
    }

    /// Acquires a slot for this source; false if none is free. [`Self::release`] releases it.
    pub(super) fn try_acquire(&mut self, source: Source) -> bool {
        let open = self.sources.get(&source).copied().unwrap_or(0);
        if self.total >= self.max_total || open >= self.max_per_source {
            return false;
        }
        self.total += 1;
        self.sources.insert(source, open + 1);
        true
    }

    pub(super) fn release(&mut self, source: Source) {
        if let Some(open) = self.sources.get_mut(&source) {
            self.total = self.total.saturating_sub(1);
            *open -= 1;
            if *open == 0 {
                self.sources.remove(&source);
            }
        }
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
    fn one_host_gets_its_share_and_all_together_the_whole() {
        let mut limiter = ConnectionLimiter::new(100, 8);
        assert_eq!((0..1000).filter(|_| limiter.try_acquire(from(1))).count(), 8);
        assert_eq!((2..1000).filter(|host| limiter.try_acquire(from(*host))).count(), 92);
        assert!(!limiter.try_acquire(from(5000)), "no slot is free");
        limiter.release(from(1));
        assert!(limiter.try_acquire(from(5000)));
    }

    #[test]
    fn a_released_slot_leaves_no_entry() {
        let mut limiter = ConnectionLimiter::new(100, 8);
        for _ in 0..1000 {
            assert!(limiter.try_acquire(from(1)));
            limiter.release(from(1));
        }
        limiter.release(from(2));
        assert_eq!((limiter.total, limiter.sources.len()), (0, 0));
    }
}
