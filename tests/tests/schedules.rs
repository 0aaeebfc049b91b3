//! Random faults by seeded schedules, judged by the checker. A few fixed seeds; `MUSTER_SEEDS=1..300`
//! runs others.

#![allow(clippy::print_stdout, reason = "what was covered, and which seed failed")]

use std::collections::{BTreeMap, BTreeSet};

use muster_tests::checker::schedule::Fault;
use muster_tests::checker::{Schedule, run};

/// Chosen so that together they hold every kind of fault, births under a fault, and two at once.
const USUAL: [u64; 4] = [5, 7, 11, 32];

#[test]
fn the_usual_seeds_hold_every_kind_of_fault_and_a_birth_under_one() {
    let schedules = USUAL.map(Schedule::of);
    let kinds: BTreeSet<_> = schedules.iter().flat_map(Schedule::kinds).collect();
    assert_eq!(kinds, Fault::KINDS.into_iter().collect());
    assert!(schedules.iter().any(|schedule| schedule.birth.is_some()));
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_no_read_is_stale() {
    let seeds = run::seeds(&USUAL).expect("seeds");
    let mut covered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in &seeds {
        for kind in Schedule::of(*seed).kinds() {
            *covered.entry(kind).or_default() += 1;
        }
        match run::run(*seed) {
            Ok(figures) => println!("seed {seed}: {figures}"),
            Err(error) => {
                println!("seed {seed} FAILED: {error:?}");
                failed.push(*seed);
            }
        }
    }
    println!("{} schedules; how many had which fault: {covered:?}", seeds.len());
    assert!(failed.is_empty(), "failing seeds: {failed:?}; each is told above");
}
