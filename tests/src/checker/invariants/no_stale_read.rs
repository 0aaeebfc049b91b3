//! **Claim.** A value that a read showed is in every read that begins afterwards, even if its write
//! was never acknowledged.

use super::{SetIndex, Violation};

pub fn check(index: &SetIndex<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in index.reads {
        for (value, first) in &index.first_shown {
            if first.ended < read.began && !read.seen.contains(value) {
                let (shown, read) = (first.summary(), read.summary());
                found.push(Violation::Stale { value: *value, shown, read });
            }
        }
    }
    found
}
