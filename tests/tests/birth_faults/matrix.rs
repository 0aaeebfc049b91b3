//! Which places a test tries: the ones it names, or in the soak all of them.

#![expect(clippy::print_stdout, reason = "what was covered is part of the result")]

use std::time::Instant;

/// A place where a founder can be caught, and which founder: by rank, the first proposes.
pub(crate) type Case = (&'static str, usize);

pub(crate) const PROPOSER: usize = 0;
pub(crate) const SECOND: usize = 1;
pub(crate) const THIRD: usize = 2;

/// What the proposer passes in a birth without faults, in order.
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

/// What every other founder passes.
pub(crate) const OF_A_SIGNER: [&str; 6] = [
    "birth.persist.promised.before",
    "birth.persist.promised.after",
    "birth.send.promise.before",
    "birth.persist.born.before",
    "birth.persist.born.after",
    "birth.send.vote.before",
];

/// Every place of every founder.
fn all() -> Vec<Case> {
    let proposer = OF_THE_PROPOSER.map(|place| (place, PROPOSER));
    let signers = OF_A_SIGNER.into_iter().flat_map(|place| [(place, SECOND), (place, THIRD)]);
    proposer.into_iter().chain(signers).collect()
}

/// Runs these cases, or with `MUSTER_BIRTH_MATRIX=1` all there are, and says how many there were.
pub(crate) fn each(way: &str, cases: &[Case], run: impl Fn(&str, usize)) {
    let is_matrix = std::env::var_os("MUSTER_BIRTH_MATRIX").is_some_and(|asked| asked == "1");
    let start = Instant::now();
    let cases = if is_matrix { all() } else { cases.to_vec() };
    for (place, rank) in &cases {
        run(place, *rank);
    }
    println!("{way}: {} places in {:.0?}", cases.len(), start.elapsed());
}
