//! **Precondition.** No value is written twice.
//!
//! The clients guarantee it. If it does not hold, they are broken and the other invariants say
//! nothing.

use std::collections::BTreeSet;

use super::Violation;
use crate::checker::history::Write;

pub fn check(writes: &[Write]) -> Vec<Violation> {
    let mut known = BTreeSet::new();
    let repeated = writes.iter().filter(|write| !known.insert(write.value));
    repeated.map(|write| Violation::Repeated { value: write.value }).collect()
}
