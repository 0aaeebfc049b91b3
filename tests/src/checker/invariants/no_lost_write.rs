//! **Claim.** A write that was acknowledged is in every read that begins afterwards.

use super::{SetIndex, Violation};

pub fn check(index: &SetIndex<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in index.reads {
        for write in index.writes.values() {
            let Some(acknowledged) = write.acknowledged.filter(|at| *at < read.began) else {
                continue;
            };
            if !read.seen.contains(&write.value) {
                let (value, read) = (write.value, read.summary());
                found.push(Violation::Lost { value, acknowledged, read });
            }
        }
    }
    found
}
