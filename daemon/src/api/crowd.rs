//! Limits concurrent unauthenticated TCP connections, in total and per source, so that one host
//! cannot lock operators out. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use muster_transport::endpoint::Source;

/// Open connections that are not authenticated yet.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    most_of_one: usize,
    total: usize,
    /// Open connections per source. Only sources with a connection have an entry.
    sources: BTreeMap<Source, usize>,
}

impl Crowd {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, total: 0, sources: BTreeMap::new() }
    }

    /// Acquires a slot for this source; false if none is free. [`Self::leave`] releases it.
    pub(super) fn enter(&mut self, source: Source) -> bool {
        let held = self.sources.get(&source).copied().unwrap_or(0);
        if self.total >= self.most || held >= self.most_of_one {
            return false;
        }
        self.total += 1;
        self.sources.insert(source, held + 1);
        true
    }

    pub(super) fn leave(&mut self, source: Source) {
        if let Some(held) = self.sources.get_mut(&source) {
            self.total = self.total.saturating_sub(1);
            *held -= 1;
            if *held == 0 {
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
        let mut crowd = Crowd::new(100, 8);
        assert_eq!((0..1000).filter(|_| crowd.enter(from(1))).count(), 8);
        assert_eq!((2..1000).filter(|host| crowd.enter(from(*host))).count(), 92);
        assert!(!crowd.enter(from(5000)), "no slot is free");
        crowd.leave(from(1));
        assert!(crowd.enter(from(5000)));
    }

    #[test]
    fn a_place_given_back_leaves_nothing_behind() {
        let mut crowd = Crowd::new(100, 8);
        for _ in 0..1000 {
            assert!(crowd.enter(from(1)));
            crowd.leave(from(1));
        }
        crowd.leave(from(2));
        assert_eq!((crowd.total, crowd.sources.len()), (0, 0));
    }
}
