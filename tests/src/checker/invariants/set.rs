//! A grow-only set, indexed for its invariants.

use std::collections::{BTreeMap, BTreeSet};

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
