//! **Claim.** A read that shows a write also shows every write that was acknowledged before that
//! one began.

use super::set::Content;
use super::{SetIndex, Violation};
use crate::checker::history::Read;

pub fn check(index: &SetIndex<'_>) -> Vec<Violation> {
    index.reads.iter().filter_map(|read| out_of_order(read, index)).collect()
}

fn out_of_order(read: &Read<Content>, index: &SetIndex<'_>) -> Option<Violation> {
    let shown = index.writes.values().filter(|w| read.seen.contains(&w.value));
    let latest = shown.max_by_key(|write| write.began)?;
    let missing = index.writes.values().filter(|w| !read.seen.contains(&w.value));
    let (acknowledged, earliest) =
        missing.filter_map(|write| write.acknowledged.map(|at| (at, write))).min_by_key(|w| w.0)?;
    (acknowledged < latest.began).then(|| Violation::OutOfOrder {
        missing: earliest.value,
        shown: latest.value,
        read: read.summary(),
    })
}
