//! Random faults by seeded schedules, checked by the checker. Runs a few fixed seeds;
//! `MUSTER_SEEDS=1..300` runs others.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;

use anyhow::anyhow;
use muster_tests::checker::schedule::{Episode, Fault, Target};
use muster_tests::checker::{Schedule, run};
use muster_tests::report;

/// Together these contain every kind of fault, births under a fault, with a crash and with spare
/// machines, and two faults at once.
const DEFAULT_SEEDS: [u64; 4] = [5, 7, 11, 22];

#[test]
fn the_usual_seeds_hold_every_kind_of_fault_and_of_birth() {
    let schedules = DEFAULT_SEEDS.map(Schedule::of);
    let kinds: BTreeSet<_> = schedules.iter().flat_map(Schedule::kinds).collect();
    assert_eq!(kinds, Fault::KINDS.into_iter().collect());
    assert!(schedules.iter().any(|schedule| schedule.birth.is_some()));
    assert!(schedules.iter().any(|schedule| schedule.crash.is_some()));
    assert!(schedules.iter().any(|schedule| schedule.nodes > schedule.expect));
}

#[test]
fn under_any_faults_nothing_acknowledged_is_lost_and_no_read_is_stale() {
    let seeds = run::seeds_from_env(&DEFAULT_SEEDS).expect("seeds");
    let mut covered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in &seeds {
        let schedule = Schedule::of(*seed);
        for kind in schedule.kinds() {
            *covered.entry(kind).or_default() += 1;
        }
        // A panic in one seed must not keep the others from running.
        let outcome = catch_unwind(|| run::run_seed(*seed));
        match outcome.unwrap_or_else(|_| Err(anyhow!("panicked, see above"))) {
            Ok(coverage) => report(format_args!("seed {seed}: {coverage}")),
            Err(error) => {
                report(format_args!("seed {seed} FAILED: {error:?}"));
                failed.push(run::repeat_command(*seed));
            }
        }
    }
    report(format_args!("{} schedules; number with each fault: {covered:?}", seeds.len()));
    let commands = failed.join("\n");
    assert!(failed.is_empty(), "{} seeds failed, see above:\n{commands}", failed.len());
}

/// The checker must be able to fail. Twice as many machines as founders, in halves, do found two
/// clusters (the limit of the claim). The clients of either one would never see the other.
#[test]
fn two_clusters_for_one_token_are_seen() {
    let halves = Fault::Minority { around: Target::Node(0), with: 2 };
    let schedule = Schedule {
        seed: 0,
        expect: 3,
        nodes: 6,
        starts: (0..6).map(|node| (node, 0)).collect(),
        birth: Some(Episode { faults: vec![halves], hold_ms: 60_000, pause_ms: 0 }),
        crash: None,
        episodes: Vec::new(),
    };
    let error = run::run_schedule(&schedule).expect_err("two clusters");
    assert!(error.to_string().contains("two clusters for one token"), "{error:?}");
}
