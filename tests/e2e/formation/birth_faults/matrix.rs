//! Fail points per test: a fixed list, or in the soak all of them.

use std::collections::BTreeSet;
use std::time::Instant;

use muster_formation::birth::failpoint::fail_point_names;
use muster_tests::report;

/// Fail point, and rank of the founder. Rank 0 proposes.
pub(crate) type Case = (&'static str, usize);

pub(crate) const PROPOSER: usize = 0;
pub(crate) const SECOND: usize = 1;
pub(crate) const THIRD: usize = 2;

/// Points that the proposer passes in a birth without faults, in order.
pub(crate) const OF_THE_PROPOSER: [&str; 12] = [
    "birth.persist.promised.before",
    "birth.persist.promised.after",
    "birth.send.propose.before",
    "birth.send.propose.after",
    "birth.persist.certified.before",
    "birth.persist.certified.after",
    "birth.send.settle.before",
    "birth.send.settle.after",
    "birth.persist.born.before",
    "birth.persist.born.after",
    "birth.send.born.before",
    "birth.send.born.after",
];

/// Points that every other founder passes.
pub(crate) const OF_A_SIGNER: [&str; 6] = [
    "birth.persist.promised.before",
    "birth.persist.promised.after",
    "birth.send.promise.before",
    "birth.persist.born.before",
    "birth.persist.born.after",
    "birth.send.vote.before",
];

/// Points that the two others pass when the proposer is gone before any vote. One inquires, the
/// other replies, and together they abandon.
pub(crate) const OF_A_SETTLER: [&str; 13] = [
    "birth.persist.inquired.before",
    "birth.persist.inquired.after",
    "birth.send.inquire.before",
    "birth.send.inquire.after",
    "birth.send.inquiry-reply.before",
    "birth.persist.abandoned.before",
    "birth.persist.abandoned.after",
    "birth.send.settle.before",
    "birth.persist.free.before",
    "birth.persist.free.after",
    "birth.send.vote.before",
    "birth.send.abandoned.before",
    "birth.send.abandoned.after",
];

/// Points that a joining machine passes.
pub(crate) const OF_A_JOINER: [&str; 2] =
    ["birth.persist.joined.before", "birth.persist.joined.after"];

/// Point that a refusing founder passes.
pub(crate) const OF_A_REFUSER: [&str; 1] = ["birth.send.refuse.before"];

/// Points at which a killed founder stops the birth.
pub(crate) const INDISPENSABLE: [Case; 13] = [
    ("birth.persist.promised.before", PROPOSER),
    ("birth.persist.promised.after", PROPOSER),
    ("birth.send.propose.before", PROPOSER),
    ("birth.send.propose.after", PROPOSER),
    ("birth.persist.certified.before", PROPOSER),
    ("birth.persist.certified.after", PROPOSER),
    ("birth.send.settle.before", PROPOSER),
    ("birth.persist.promised.before", SECOND),
    ("birth.persist.promised.after", SECOND),
    ("birth.send.promise.before", SECOND),
    ("birth.persist.promised.before", THIRD),
    ("birth.persist.promised.after", THIRD),
    ("birth.send.promise.before", THIRD),
];

/// Returns every point of every founder in a birth without settlement.
fn all() -> Vec<Case> {
    let proposer = OF_THE_PROPOSER.map(|place| (place, PROPOSER));
    let signers = OF_A_SIGNER.into_iter().flat_map(|place| [(place, SECOND), (place, THIRD)]);
    proposer.into_iter().chain(signers).collect()
}

/// Runs these cases, or with `MUSTER_BIRTH_MATRIX=1` every point of every founder.
pub(crate) fn for_each_case(way: &str, cases: &[Case], run: impl Fn(&str, usize)) {
    for_cases(way, cases, &all(), |(place, rank)| run(place, *rank));
}

/// Runs the fixed cases, or with `MUSTER_BIRTH_MATRIX=1` all of them, and reports their number.
pub(crate) fn for_cases<T>(way: &str, fixed: &[T], all: &[T], run: impl Fn(&T)) {
    let is_matrix = std::env::var_os("MUSTER_BIRTH_MATRIX").is_some_and(|asked| asked == "1");
    let start = Instant::now();
    let cases = if is_matrix { all } else { fixed };
    cases.iter().for_each(run);
    report(format_args!("{way}: {} places in {:.0?}", cases.len(), start.elapsed()));
}

/// A new fail point that is in none of these lists would never be tested.
#[test]
fn every_place_that_there_is_is_tried_and_every_one_tried_exists() {
    let lists: [&[&str]; 5] =
        [&OF_THE_PROPOSER, &OF_A_SIGNER, &OF_A_SETTLER, &OF_A_JOINER, &OF_A_REFUSER];
    let tried: BTreeSet<String> =
        lists.into_iter().flatten().map(|place| (*place).to_owned()).collect();
    assert_eq!(tried, fail_point_names().collect());
    assert!(INDISPENSABLE.iter().all(|case| all().contains(case)));
}
