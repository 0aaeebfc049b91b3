//! **Claim.** Of any two reads of a grow-only set, one contains the other.

use super::{SetIndex, Violation};

pub fn check(index: &SetIndex<'_>) -> Vec<Violation> {
    // Sorted by size, each read contains the one before it.
    let mut sorted: Vec<_> = index.reads.iter().collect();
    sorted.sort_by_key(|read| read.seen.len());
    let pairs = sorted.windows(2).filter(|pair| !pair[0].seen.is_subset(&pair[1].seen));
    let violation = |pair: &[_]| -> Violation {
        let [one, other] = [pair[0], pair[1]].map(crate::checker::history::Read::summary);
        Violation::Disagreement { one, other }
    };
    pairs.map(violation).collect()
}
