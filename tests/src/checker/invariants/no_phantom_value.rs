//! **Claim.** A read shows only values whose write began before the read ended.

use super::{SetIndex, Violation};

pub fn check(index: &SetIndex<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in index.reads {
        for value in &read.seen {
            if index.writes.get(value).is_none_or(|write| write.began > read.ended) {
                found.push(Violation::Phantom { value: *value, read: read.summary() });
            }
        }
    }
    found
}
