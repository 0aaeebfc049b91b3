//! A grow-only set, indexed for its invariants.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Violation, no_lost_write, no_phantom_value, no_stale_read, reads_agree, unique_writes,
    writes_in_order,
};
use crate::checker::history::{Read, Set, Write};

/// Content of one read.
pub(super) type Content = BTreeSet<u64>;

/// The operations on a set, by value.
#[derive(Debug)]
pub struct SetIndex<'a> {
    pub(super) writes: BTreeMap<u64, &'a Write>,
    /// The read that showed each value and ended first.
    pub(super) first_shown: BTreeMap<u64, &'a Read<Content>>,
    pub(super) reads: &'a [Read<Content>],
}

impl<'a> SetIndex<'a> {
    pub fn of(set: &'a Set) -> Self {
        let writes = set.writes.iter().map(|write| (write.value, write)).collect();
        let mut first_shown: BTreeMap<u64, &Read<Content>> = BTreeMap::new();
        for read in &set.reads {
            for value in &read.seen {
                let first = first_shown.entry(*value).or_insert(read);
                if read.ended < first.ended {
                    *first = read;
                }
            }
        }
        Self { writes, first_shown, reads: &set.reads }
    }
}

/// Checks all invariants of a set.
pub fn check_set(set: &Set) -> Vec<Violation> {
    let index = SetIndex::of(set);
    let mut found = unique_writes::check(&set.writes);
    found.extend(no_phantom_value::check(&index));
    found.extend(no_lost_write::check(&index));
    found.extend(no_stale_read::check(&index));
    found.extend(writes_in_order::check(&index));
    found.extend(reads_agree::check(&index));
    found
}
