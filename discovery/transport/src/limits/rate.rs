//! Rate limiter per key, in a table of bounded size. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Token bucket per key, stored as one timestamp (GCRA). A new or idle key may make a burst of
/// events, then one event per interval.
#[derive(Debug)]
pub struct RateLimiter<K> {
    burst: u32,
    interval: Duration,
    max_keys: usize,
    /// Time at which each key's bucket is full again. Only keys whose bucket was not full at the last
    /// event.
    full_at: BTreeMap<K, Instant>,
    /// The same entries, soonest first. Eviction takes the first one and does not scan the table, so
    /// that a flood of new keys stays cheap.
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// `max_keys` bounds the table. When it is full, a new key evicts the one whose bucket is full
    /// soonest.
    pub fn new(burst: u32, interval: Duration, max_keys: usize) -> Self {
        Self { burst, interval, max_keys, full_at: BTreeMap::new(), by_time: BTreeSet::new() }
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
        while self.by_time.first().is_some_and(|(at, _)| *at <= now) {
            self.evict_first();
        }
        let full_at = match self.full_at.get(&key) {
            Some(at) => {
                self.by_time.remove(&(*at, key.clone()));
                *at
            }
            None if self.full_at.len() >= self.max_keys => {
                self.evict_first();
                now
            }
            None => now,
        };
        let at = (full_at + self.interval).min(now + self.capacity());
        self.full_at.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }

    /// Forgets the key whose bucket is full soonest.
    fn evict_first(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first() {
            self.full_at.remove(&key);
        }
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
        for key in 0..100_000 {
            limiter.record(key, t0);
        }
        assert_eq!((limiter.full_at.len(), limiter.by_time.len()), (MAX_KEYS, MAX_KEYS));
        limiter.record(1, t0 + INTERVAL * 2 * BURST);
        assert_eq!((limiter.full_at.len(), limiter.by_time.len()), (1, 1));
    }

    /// A peer with many addresses must not get a new budget by using the others. Least recently used
    /// would evict the limited key here.
    #[test]
    fn a_flood_of_new_keys_does_not_reset_a_limited_key() {
        let (mut limiter, t0) = (limiter(), Instant::now());
        for _ in 0..BURST {
            assert!(limiter.try_acquire(0, t0));
        }
        for key in 1..100_000 {
            assert!(limiter.try_acquire(key, t0 + INTERVAL / 2));
        }
        assert!(!limiter.try_acquire(0, t0 + INTERVAL / 2));
        assert!(limiter.try_acquire(0, t0 + INTERVAL));
        assert!(!limiter.try_acquire(0, t0 + INTERVAL));
    }

    /// Compares with a table that is scanned for each event.
    #[test]
    fn the_evicted_key_is_the_one_that_a_scan_finds() {
        let (mut limiter, t0) = (RateLimiter::new(3, INTERVAL, 8), Instant::now());
        let mut scanned: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut state = 1_u64;
        for step in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, now) = ((state >> 33) % 20, t0 + INTERVAL / 7 * step);
            scanned.retain(|_, at| *at > now);
            if scanned.len() >= 8 && !scanned.contains_key(&key) {
                let soonest = scanned.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key);
                scanned.remove(&soonest.unwrap());
            }
            let at = scanned.entry(key).or_insert(now);
            *at = (*at + INTERVAL).min(now + INTERVAL * 3);
            limiter.record(key, now);
            assert_eq!(limiter.full_at, scanned, "step {step}");
        }
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
