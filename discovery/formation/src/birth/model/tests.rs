//! The searches. Each is exhaustive within its budget. `MUSTER_MODEL_DEPTH` (default 0) is added to
//! every budget. Such a search also ends after [`DEEP`] states or `MUSTER_MODEL_SECONDS` (default
//! 600), and reports the depth to which it was complete.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model as _};

use super::{Action, BirthModel, Budget, Cause, Plan, World};
use crate::birth::testing::report;

pub(super) const SPLIT: &str = "never two clusters";

/// A discovery with its path: each world and the action taken in it; the last one has no action.
pub(super) type Found = (&'static str, Vec<(World, Option<Action>)>);

/// Number of states, before merging, that fits into a few gigabytes.
const DEEP: usize = 40_000_000;

fn setting(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

pub(super) fn depth() -> u8 {
    u8::try_from(setting("MUSTER_MODEL_DEPTH", 0)).unwrap()
}

/// Budget of proposals, timeouts and crashes, each increased by the search depth.
fn budget(proposals: u8, timeouts: u8, crashes: u8) -> Budget {
    let more = depth();
    Budget {
        proposals: proposals + more,
        timeouts: timeouts + more,
        crashes: crashes + more,
        wipes: 0,
    }
}

pub(super) fn plan(proposer: usize, founders: [usize; 3]) -> Plan {
    Plan { proposer, founders: founders.to_vec() }
}

/// Searches everything within the budget, or until `until`, and returns the discoveries.
pub(super) fn search(name: &str, mut birth: BirthModel, until: HasDiscoveries) -> Vec<Found> {
    let start = Instant::now();
    let limit = Duration::from_secs(setting("MUSTER_MODEL_SECONDS", 600));
    birth.deadline = (depth() > 0).then_some(start + limit);
    let is_over = Arc::clone(&birth.is_over);
    let mut builder = birth.checker().threads(1).finish_when(until);
    if depth() > 0 {
        builder = builder.target_state_count(DEEP);
    }
    let checker = builder.spawn_bfs().join();
    is_over.store(true, Ordering::Relaxed);
    let is_truncated = depth() > 0 && (checker.state_count() >= DEEP || start.elapsed() >= limit);
    let (states, before) = (checker.unique_state_count(), checker.state_count());
    let steps = checker.max_depth();
    let covered = if is_truncated {
        format!("complete to {} steps, stopped there", steps.saturating_sub(2))
    } else {
        format!("{steps} steps deep")
    };
    let took = start.elapsed();
    report(format_args!(
        "{name}: {states} states ({before} before merging), {covered}, in {took:.1?}"
    ));
    checker.discoveries().into_iter().map(|(what, path)| (what, path.into_vec())).collect()
}

pub(super) fn trace(path: &[(World, Option<Action>)]) -> String {
    let line = |(world, action): &(World, Option<Action>)| {
        let Action { cause, crash_after } = (*action)?;
        let description = match cause {
            Cause::Deliver(at) => {
                let envelope = &world.sent[at].value;
                let message = format!("{:?}", envelope.message);
                let kind = message.split([' ', '(']).next().unwrap_or_default();
                format!("{kind} from {} to {}", envelope.from, envelope.to)
            }
            other => format!("{other:?}"),
        };
        let crash = crash_after.map_or_else(String::new, |n| format!(", crash after {n} effects"));
        Some(format!("  {description}{crash}"))
    };
    path.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// Asserts that no violation is found and that the expected discoveries are: a search that reaches
/// nothing proves nothing.
fn assert_holds(name: &str, birth: BirthModel) {
    let found = search(name, birth, HasDiscoveries::AnyFailures);
    let good = ["a birth happens", "a proposal is abandoned"];
    for (what, path) in &found {
        assert!(good.contains(what), "{name}: violated: {what}\n{}", trace(path));
    }
    let found: Vec<_> = found.iter().map(|(what, _)| what).collect();
    assert_eq!(found.len(), good.len(), "{name}: the search found only {found:?}");
}

/// Two sets of founders that share one machine.
pub(super) fn sharing_one_founder() -> Vec<Plan> {
    vec![plan(0, [0, 1, 2]), plan(4, [2, 3, 4])]
}

#[test]
fn three_candidates_with_competing_proposals() {
    let mut birth = BirthModel::new(3, BirthModel::all_plans(3), budget(2, 1, 1));
    birth.drain_every = 16;
    assert_holds("three candidates, competing", birth);
}

#[test]
fn three_candidates_that_settle_in_several_rounds() {
    let mut birth = BirthModel::new(3, vec![plan(1, [0, 1, 2])], budget(1, 2, 1));
    birth.drain_every = 16;
    assert_holds("three candidates, several rounds", birth);
}

#[test]
fn four_candidates_of_which_one_is_replaced() {
    let plans = vec![plan(0, [0, 1, 2]), plan(3, [1, 2, 3])];
    let mut birth = BirthModel::new(4, plans, budget(2, 1, 1));
    birth.drain_every = 16;
    assert_holds("four candidates", birth);
}

#[test]
fn five_candidates_with_one_founder_in_common() {
    let mut birth = BirthModel::new(5, sharing_one_founder(), budget(2, 1, 1));
    birth.drain_every = 16;
    assert_holds("five candidates", birth);
}

/// Four machines, one of which is wiped at any time and returns as a fifth candidate. The next
/// proposal may name it. The wiped one is any founder of the first proposal, or the spare machine.
#[test]
fn four_machines_of_which_one_is_wiped() {
    let wiped = Budget { wipes: 1, ..budget(2, 1, 0) };
    let mut birth = BirthModel::new(5, sharing_one_founder(), wiped);
    birth.replacements = 1;
    birth.drain_every = 16;
    assert_holds("four machines, one wiped", birth);
}

/// Three machines, two of which are wiped at different times. There is no spare machine: promises
/// made with the wiped ones may bind the last one indefinitely, but nothing splits.
#[test]
fn three_machines_of_which_two_are_wiped() {
    let wiped = Budget { wipes: 2, ..budget(2, 1, 0) };
    let plans = vec![plan(0, [0, 1, 2]), plan(2, [2, 3, 4]), plan(3, [1, 2, 3])];
    let mut birth = BirthModel::new(5, plans, wiped);
    birth.replacements = 2;
    birth.drain_every = 16;
    assert_holds("three machines, two wiped", birth);
}
