//! Concurrency limiter: permits held at the same time, in total and per key, so that one key cannot
//! lock the others out. Pure: no clock, no I/O, no waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Cloneable handle; all clones share the permits.
#[derive(Debug)]
pub struct ConcurrencyLimiter<K> {
    max_total: usize,
    max_per_key: usize,
    held: Arc<Mutex<Held<K>>>,
}

#[derive(Debug)]
struct Held<K> {
    total: usize,
    /// Only keys that hold a permit, so never more entries than permits.
    by_key: BTreeMap<K, usize>,
}

/// One permit, released on drop.
#[derive(Debug)]
#[must_use = "the permit is released when it is dropped"]
pub struct Permit<K: Ord> {
    key: K,
    held: Arc<Mutex<Held<K>>>,
}

impl<K: Ord + Clone> ConcurrencyLimiter<K> {
    pub fn new(max_total: usize, max_per_key: usize) -> Self {
        let held = Held { total: 0, by_key: BTreeMap::new() };
        Self { max_total, max_per_key, held: Arc::new(Mutex::new(held)) }
    }

    /// Creates a limiter without a total limit, for keys whose number is bounded elsewhere.
    pub fn per_key(max_per_key: usize) -> Self {
        Self::new(usize::MAX, max_per_key)
    }

    /// Acquires a permit for this key. `None` if none is left, in total or for this key.
    pub fn try_acquire(&self, key: K) -> Option<Permit<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.by_key.get(&key).copied().unwrap_or(0);
        if held.total >= self.max_total || count >= self.max_per_key {
            return None;
        }
        held.total += 1;
        held.by_key.insert(key.clone(), count + 1);
        Some(Permit { key, held: Arc::clone(&self.held) })
    }

    /// Returns the number of permits that this key holds.
    pub fn held_by(&self, key: &K) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.by_key.get(key).copied().unwrap_or(0)
    }
}

impl<K> Clone for ConcurrencyLimiter<K> {
    fn clone(&self) -> Self {
        let Self { max_total, max_per_key, .. } = *self;
        Self { max_total, max_per_key, held: Arc::clone(&self.held) }
    }
}

impl<K: Ord> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if let Some(count) = held.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_gets_its_share_and_all_together_the_whole() {
        let limiter = ConcurrencyLimiter::new(100, 8);
        let mut first: Vec<_> = (0..1000).filter_map(|_| limiter.try_acquire(1)).collect();
        assert_eq!((first.len(), limiter.held_by(&1)), (8, 8));
        let others: Vec<_> = (2..1000).filter_map(|key| limiter.try_acquire(key)).collect();
        assert_eq!(others.len(), 92);
        assert!(limiter.try_acquire(5000).is_none(), "no permit is left");
        first.pop();
        assert!(limiter.try_acquire(5000).is_some());
    }

    #[test]
    fn a_key_without_permits_leaves_no_entry() {
        let limiter = ConcurrencyLimiter::new(100, 8);
        for _ in 0..1000 {
            assert!(limiter.clone().try_acquire(1).is_some());
        }
        let held = limiter.held.lock().unwrap();
        assert_eq!((held.total, held.by_key.len()), (0, 0));
    }

    #[test]
    fn a_limiter_per_key_has_no_total_limit() {
        let limiter = ConcurrencyLimiter::per_key(8);
        let permits: Vec<_> = (0..1000).filter_map(|n| limiter.try_acquire(n % 100)).collect();
        assert_eq!(permits.len(), 800);
        assert!(limiter.try_acquire(1).is_none());
        drop(permits);
        assert!(limiter.try_acquire(1).is_some());
    }
}
