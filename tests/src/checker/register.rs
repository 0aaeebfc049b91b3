//! Judges a register whose values are written once each.
//!
//! Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 26, 1997): the write of a value and
//! the reads of it stand together in any order that explains the history. So one value comes before
//! another one if any operation on it ended before any operation on the other one began, and the
//! history is linearizable exactly if no two values come before each other and no read ended before
//! the write of its value began.

use std::collections::BTreeMap;

use super::history::{Register, Violation};

/// All operations on one value.
struct Cluster {
    value: Option<u64>,
    /// The earliest end of any of them, and the latest beginning.
    first_end: u64,
    last_begin: u64,
    what_ended: String,
    what_began: String,
}

impl Cluster {
    fn comes_before(&self, other: &Self) -> bool {
        self.first_end < other.last_begin
    }

    fn end(&mut self, at: u64, what: &str, node: &str) {
        if at < self.first_end {
            (self.first_end, self.what_ended) = (at, format!("{what} {node} until {at} µs"));
        }
    }

    fn begin(&mut self, at: u64, what: &str, node: &str) {
        if at > self.last_begin {
            (self.last_begin, self.what_began) = (at, format!("{what} {node} from {at} µs"));
        }
    }
}

/// Everything that is wrong with a history of a register.
pub fn check(register: &Register) -> Vec<Violation> {
    let (clusters, mut found) = clusters(register);
    for (at, one) in clusters.iter().enumerate() {
        for other in &clusters[at + 1..] {
            if one.comes_before(other) && other.comes_before(one) {
                found.push(Violation::Unordered {
                    one: one.value.unwrap_or(0),
                    other: other.value.unwrap_or(0),
                    why: format!(
                        "{}, then {}; and {}, then {}",
                        one.what_ended, other.what_began, other.what_ended, one.what_began
                    ),
                });
            }
        }
    }
    found
}

/// The operations by value, but for writes that nobody acknowledged and nobody saw: they need not
/// have happened.
fn clusters(register: &Register) -> (Vec<Cluster>, Vec<Violation>) {
    let mut found = Vec::new();
    let mut clusters: BTreeMap<Option<u64>, Cluster> = BTreeMap::new();
    // What was there before everything: written before the first moment.
    let start = "the beginning".to_owned();
    let none = Cluster {
        value: None,
        first_end: 0,
        last_begin: 0,
        what_ended: start.clone(),
        what_began: start,
    };
    clusters.insert(None, none);
    let mut began = BTreeMap::new();
    let mut certain = BTreeMap::from([(None, true)]);
    for write in &register.writes {
        let value = Some(write.value);
        if began.insert(value, write.began).is_some() {
            found.push(Violation::Repeated { value: write.value });
        }
        let mut cluster = Cluster {
            value,
            first_end: u64::MAX,
            last_begin: 0,
            what_ended: String::new(),
            what_began: String::new(),
        };
        cluster.begin(write.began, "written through", &write.node);
        if let Some(at) = write.acknowledged {
            cluster.end(at, "written through", &write.node);
        }
        certain.insert(value, write.acknowledged.is_some());
        clusters.insert(value, cluster);
    }
    for read in &register.reads {
        let written_before =
            read.seen.is_none() || began.get(&read.seen).is_some_and(|b| *b <= read.ended);
        let (Some(cluster), true) = (clusters.get_mut(&read.seen), written_before) else {
            let value = read.seen.unwrap_or(0);
            found.push(Violation::Phantom { value, read: read.told() });
            continue;
        };
        cluster.begin(read.began, "read through", &read.node);
        cluster.end(read.ended, "read through", &read.node);
        certain.insert(read.seen, true);
    }
    let known = |value: &Option<u64>| certain.get(value).copied().unwrap_or(false);
    let clusters = clusters.into_iter().filter(|(value, _)| known(value));
    (clusters.map(|(_, cluster)| cluster).collect(), found)
}
