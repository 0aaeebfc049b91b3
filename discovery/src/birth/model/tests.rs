//! The searches. Each is exhaustive within its budget. `MUSTER_MODEL_DEPTH` (0 unless set) adds that
//! much to every budget; such a search ends at [`DEEP`] states and says so.

#![expect(clippy::print_stdout, reason = "the figures are part of the result")]

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Act, Birth, Budget, Cause, Plan, World};
use crate::birth::step::Quorums;

const SPLIT: &str = "never two clusters";

/// What fits into a few gigabytes; counted before merging.
const DEEP: usize = 40_000_000;

pub(super) fn depth() -> u8 {
    std::env::var("MUSTER_MODEL_DEPTH").map_or(0, |depth| depth.parse().unwrap())
}

/// Proposals, impatience, crashes; more of each the deeper the search.
fn budget(proposals: u8, impatience: u8, crashes: u8) -> Budget {
    let more = depth();
    Budget { proposals: proposals + more, impatience: impatience + more, crashes: crashes + more }
}

fn plan(proposer: usize, founders: [usize; 3]) -> Plan {
    Plan { proposer, founders: founders.to_vec() }
}

/// Searches everything within the budget, or until `until` is found, and says what was found.
fn search(name: &str, birth: Birth, until: HasDiscoveries) -> Vec<(&'static str, String)> {
    let start = Instant::now();
    let mut builder = birth.checker().threads(1).finish_when(until);
    if depth() > 0 {
        builder = builder.target_state_count(DEEP);
    }
    let checker = builder.spawn_bfs().join();
    println!(
        "{name}: {} states ({} before merging{}), {} steps deep, in {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        if depth() > 0 && checker.state_count() >= DEEP { ", stopped there" } else { "" },
        checker.max_depth(),
        start.elapsed()
    );
    let discoveries = checker.discoveries().into_iter();
    discoveries.map(|(what, path)| (what, story(path.into_vec()))).collect()
}

fn story(path: Vec<(World, Option<Act>)>) -> String {
    let line = |(world, act): (World, Option<Act>)| {
        let Act { cause, crash_after } = act?;
        let told = match cause {
            Cause::Deliver(at) => {
                let envelope = &world.sent[at].value;
                let message = format!("{:?}", envelope.message);
                let kind = message.split([' ', '(']).next().unwrap_or_default();
                format!("{kind} from {} to {}", envelope.from, envelope.to)
            }
            other => format!("{other:?}"),
        };
        let crash = crash_after.map_or_else(String::new, |n| format!(", crash after {n} effects"));
        Some(format!("  {told}{crash}"))
    };
    path.into_iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// Nothing bad is found, and the good things are: a search that reaches nothing proves nothing.
fn holds(name: &str, birth: Birth) {
    let found = search(name, birth, HasDiscoveries::AnyFailures);
    let good = ["a birth happens", "a proposal is abandoned"];
    for (what, story) in &found {
        assert!(good.contains(what), "{name}: violated: {what}\n{story}");
    }
    assert_eq!(found.len(), good.len(), "{name}: the search found only {found:?}");
}

/// The defect is found as what it is: two clusters.
fn splits(name: &str, birth: Birth) {
    let found = search(name, birth, HasDiscoveries::AnyOf([SPLIT].into()));
    let split = found.iter().find(|(what, _)| *what == SPLIT);
    let (_, story) = split.unwrap_or_else(|| panic!("{name}: the defect was not found"));
    println!("{story}");
}

/// Two sets that share one machine.
fn disjoint_but_one() -> Vec<Plan> {
    vec![plan(0, [0, 1, 2]), plan(4, [2, 3, 4])]
}

#[test]
fn three_candidates_with_competing_proposals() {
    let mut birth = Birth::new(3, Birth::all_plans(3), budget(2, 1, 1));
    birth.drain_every = 16;
    holds("three candidates, competing", birth);
}

#[test]
fn three_candidates_that_settle_in_several_rounds() {
    let mut birth = Birth::new(3, vec![plan(1, [0, 1, 2])], budget(1, 2, 1));
    birth.drain_every = 16;
    holds("three candidates, several rounds", birth);
}

#[test]
fn four_candidates_of_whom_one_is_replaced() {
    let plans = vec![plan(0, [0, 1, 2]), plan(3, [1, 2, 3])];
    let mut birth = Birth::new(4, plans, budget(2, 1, 1));
    birth.drain_every = 16;
    holds("four candidates", birth);
}

#[test]
fn five_candidates_with_one_founder_in_common() {
    let mut birth = Birth::new(5, disjoint_but_one(), budget(2, 1, 1));
    birth.drain_every = 16;
    holds("five candidates", birth);
}

#[test]
fn a_promise_answered_before_it_is_durable_splits() {
    let mut birth =
        Birth::new(5, disjoint_but_one(), Budget { proposals: 2, impatience: 0, crashes: 1 });
    birth.sends_before_durable = true;
    splits("mutant: promise answered before it is durable", birth);
}

#[test]
fn abandoning_without_a_majority_splits() {
    let mut birth =
        Birth::new(5, disjoint_but_one(), Budget { proposals: 2, impatience: 1, crashes: 0 });
    birth.quorums = Quorums { standings: 1, abandoned: 1, ..Quorums::of(3) };
    splits("mutant: free on its own abandonment", birth);
}

#[test]
fn a_certificate_of_all_but_one_splits() {
    let mut birth =
        Birth::new(5, disjoint_but_one(), Budget { proposals: 2, impatience: 0, crashes: 0 });
    birth.quorums = Quorums { signatures: 2, ..Quorums::of(3) };
    splits("mutant: certificate from N-1 signatures", birth);
}

#[test]
fn being_born_on_the_certificate_alone_splits() {
    let mut birth =
        Birth::new(5, disjoint_but_one(), Budget { proposals: 2, impatience: 1, crashes: 0 });
    birth.quorums = Quorums { born: 1, ..Quorums::of(3) };
    splits("mutant: born without a majority's votes", birth);
}
