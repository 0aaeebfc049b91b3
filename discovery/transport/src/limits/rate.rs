//! Rate limiter per key, in a table of bounded size. Pure: the clock is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Token bucket per key, stored as one timestamp (GCRA). A new or idle key may make a burst of
/// events, then one event per interval.
#[derive(Debug)]
pub struct RateLimiter<K> {
    burst: u32,
    interval: Duration,
    max_keys: usize,
    /// Time at which each key's bucket is full again. Only keys whose bucket is not full now.
    full_at: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// `max_keys` bounds the table. When it is full, a new key evicts the one whose bucket is full
    /// soonest.
    pub fn new(burst: u32, interval: Duration, max_keys: usize) -> Self {
        Self { burst, interval, max_keys, full_at: BTreeMap::new() }
    }

    /// Returns true if this key may have one more event now; counts it if so.
    pub fn try_acquire(&mut self, key: K, now: Instant) -> bool {
        let allowed = !self.is_limited(&key, now);
        if allowed {
            self.record(key, now);
        }
        allowed
    }

    /// Returns true if this key must wait before its next event.
    pub fn is_limited(&self, key: &K, now: Instant) -> bool {
        let full_at = self.full_at.get(key).copied().unwrap_or(now);
        full_at + self.interval > now + self.capacity()
    }

    /// Counts an event that has happened, allowed or not. Events beyond the limit cost the key no
    /// more than an empty bucket.
    pub fn record(&mut self, key: K, now: Instant) {
        self.full_at.retain(|_, at| *at > now);
        if self.full_at.len() >= self.max_keys && !self.full_at.contains_key(&key) {
            let soonest = self.full_at.iter().min_by_key(|(_, at)| **at).map(|(k, _)| k.clone());
            if let Some(soonest) = soonest {
                self.full_at.remove(&soonest);
            }
        }
        let limit = now + self.capacity();
        let at = self.full_at.entry(key).or_insert(now);
        *at = (*at + self.interval).min(limit);
    }

    /// Returns the time that an empty bucket takes to fill.
    fn capacity(&self) -> Duration {
        self.interval * self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 10;
    const INTERVAL: Duration = Duration::from_secs(2);
    const MAX_KEYS: usize = 1024;

    fn limiter() -> RateLimiter<u32> {
        RateLimiter::new(BURST, INTERVAL, MAX_KEYS)
    }

    #[test]
    fn a_key_is_limited_after_a_burst_and_recovers_with_time() {
        let (mut limiter, t0) = (limiter(), Instant::now());
        for _ in 0..BURST {
            assert!(!limiter.is_limited(&1, t0));
            limiter.record(1, t0);
        }
        assert!(limiter.is_limited(&1, t0));
        assert!(!limiter.is_limited(&2, t0));
        assert!(!limiter.is_limited(&1, t0 + INTERVAL));
        limiter.record(1, t0 + INTERVAL);
        assert!(limiter.is_limited(&1, t0 + INTERVAL));
        assert!(!limiter.is_limited(&1, t0 + INTERVAL * 3));
    }

    #[test]
    fn a_key_that_tries_without_end_gets_its_rate_and_no_other_key_waits() {
        let (mut limiter, t0) = (limiter(), Instant::now());
        let taken = |limiter: &mut RateLimiter<u32>, at| {
            (0..1000).filter(|_| limiter.try_acquire(1, t0 + at)).count()
        };
        assert_eq!(taken(&mut limiter, Duration::ZERO), BURST as usize);
        assert!(limiter.try_acquire(2, t0));
        assert_eq!(taken(&mut limiter, INTERVAL / 2), 0);
        assert_eq!(taken(&mut limiter, INTERVAL), 1);
        assert_eq!(taken(&mut limiter, INTERVAL * 3), 2);
        assert_eq!(taken(&mut limiter, INTERVAL * 1000), BURST as usize);
        assert_eq!(limiter.full_at.len(), 1, "an idle key is forgotten");
    }

    #[test]
    fn events_beyond_the_limit_do_not_extend_the_wait() {
        let (mut limiter, t0) = (limiter(), Instant::now());
        for _ in 0..1000 {
            limiter.record(1, t0);
        }
        assert!(limiter.is_limited(&1, t0));
        assert!(!limiter.is_limited(&1, t0 + INTERVAL));
    }

    #[test]
    fn many_keys_do_not_grow_the_table() {
        let (mut limiter, t0) = (limiter(), Instant::now());
        for key in 0..10_000 {
            limiter.record(key, t0);
        }
        assert_eq!(limiter.full_at.len(), MAX_KEYS);
        limiter.record(1, t0 + INTERVAL * 2 * BURST);
        assert_eq!(limiter.full_at.len(), 1);
    }

    #[test]
    fn a_full_table_evicts_the_key_that_recovers_first() {
        let (mut limiter, t0) = (RateLimiter::new(2, INTERVAL, 2), Instant::now());
        limiter.record("patient", t0);
        limiter.record("flood", t0);
        limiter.record("flood", t0);
        limiter.record("new", t0);
        assert!(limiter.is_limited(&"flood", t0));
        assert!(!limiter.full_at.contains_key("patient"));
    }
}
