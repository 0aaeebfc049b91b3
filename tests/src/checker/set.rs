//! Judges a set that only grows.
//!
//! A history of such a set is linearizable exactly if none of the five things below is in it. Why no
//! other can be: order the operations by time (whatever ended before another began) and by content
//! (an add before the reads that show it, after those that do not). If a cycle uses several steps of
//! time it can be shortened to one (intervals: if a<b and c<d then a<d or c<b). With no step of time
//! the shortest cycle is two reads that contradict each other; with one, it is one step of time
//! between two operations that the content orders the other way round: read to add (phantom), add to
//! read (lost), read to read (stale), add to add (skipped).

use std::collections::BTreeMap;

use super::history::{Read, Set, Violation, Write};

/// Everything that is wrong with a history of a set; of each kind the first few.
pub fn check(set: &Set) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut writes: BTreeMap<u64, &Write> = BTreeMap::new();
    for write in &set.writes {
        if writes.insert(write.value, write).is_some() {
            found.push(Violation::Repeated { value: write.value });
        }
    }
    let mut shown: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, read) in set.reads.iter().enumerate() {
        for value in &read.seen {
            let first = shown.entry(*value).or_insert(at);
            if read.ended < set.reads[*first].ended {
                *first = at;
            }
            if writes.get(value).is_none_or(|write| write.began > read.ended) {
                found.push(Violation::Phantom { value: *value, read: read.told() });
            }
        }
    }
    for read in &set.reads {
        found.extend(missing(read, &writes, &shown, &set.reads));
        found.extend(skipped(read, &writes));
    }
    found.extend(contradictions(&set.reads));
    found
}

type Content = std::collections::BTreeSet<u64>;

/// What this read should have shown.
fn missing(
    read: &Read<Content>,
    writes: &BTreeMap<u64, &Write>,
    shown: &BTreeMap<u64, usize>,
    reads: &[Read<Content>],
) -> Vec<Violation> {
    let lost = writes.values().filter_map(|write| {
        let acknowledged = write.acknowledged.filter(|at| *at < read.began)?;
        (!read.seen.contains(&write.value)).then(|| Violation::Lost {
            value: write.value,
            acknowledged,
            read: read.told(),
        })
    });
    let stale = shown.iter().filter_map(|(value, first)| {
        let first = &reads[*first];
        (first.ended < read.began && !read.seen.contains(value)).then(|| Violation::Stale {
            value: *value,
            shown: first.told(),
            read: read.told(),
        })
    });
    lost.chain(stale).collect()
}

/// A write that it shows began after one was acknowledged that it does not show.
fn skipped(read: &Read<Content>, writes: &BTreeMap<u64, &Write>) -> Option<Violation> {
    let shown = writes.values().filter(|w| read.seen.contains(&w.value));
    let latest = shown.max_by_key(|write| write.began)?;
    let missing = writes.values().filter(|w| !read.seen.contains(&w.value));
    let (acknowledged, earliest) =
        missing.filter_map(|write| write.acknowledged.map(|at| (at, write))).min_by_key(|w| w.0)?;
    (acknowledged < latest.began).then(|| Violation::Skipped {
        missing: earliest.value,
        shown: latest.value,
        read: read.told(),
    })
}

/// Reads of a growing set contain each other: sorted by size, each contains the one before it.
fn contradictions(reads: &[Read<Content>]) -> Vec<Violation> {
    let mut sorted: Vec<_> = reads.iter().collect();
    sorted.sort_by_key(|read| read.seen.len());
    let pairs = sorted.windows(2).filter(|pair| !pair[0].seen.is_subset(&pair[1].seen));
    pairs.map(|p| Violation::Contradiction { one: p[0].told(), other: p[1].told() }).collect()
}
