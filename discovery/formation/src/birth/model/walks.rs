//! Random walks beyond the reach of an exhaustive search: births of other sizes with far more
//! faults, each ended by a drain. A failing walk prints its seed, which reproduces it.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use stateright::{Expectation, Model as _};

use super::tests::depth;
use super::{Action, BirthModel, Budget, Cause, Plan, World};
use crate::birth::testing::report;

const STEPS: usize = 160;

/// Random sets of machines, each with a random proposer.
fn plans(rng: &mut StdRng, machines: usize, expect: usize) -> Vec<Plan> {
    let plan = |rng: &mut StdRng| {
        let mut founders = (0..machines).sample(rng, expect);
        founders.sort_unstable();
        Plan { proposer: *founders.choose(rng).unwrap(), founders }
    };
    (0..6).map(|_| plan(rng)).collect()
}

/// Returns a random different world. Deliveries are preferred, so that walks make progress.
fn next(birth: &BirthModel, rng: &mut StdRng, world: &World) -> Option<World> {
    let mut actions = Vec::new();
    birth.actions(world, &mut actions);
    actions.shuffle(rng);
    if rng.random_ratio(4, 5) {
        let is_delivery = |action: &Action| {
            matches!(action.cause, Cause::Deliver(_)) && action.crash_after.is_none()
        };
        actions.sort_by_key(|action| !is_delivery(action));
    }
    actions.into_iter().find_map(|action| birth.next_state(world, action))
}

fn check(birth: &BirthModel, world: &World, seed: u64) {
    for property in birth.properties() {
        if property.expectation == Expectation::Always {
            assert!((property.condition)(birth, world), "{}, seed {seed}", property.name);
        }
    }
}

/// Performs one walk. Returns true if a cluster was born before the drain.
fn walk(expect: usize, machines: u8, seed: u64) -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    let plans = plans(&mut rng, usize::from(machines), expect);
    let budget = Budget { proposals: 5, timeouts: 12, crashes: 8, wipes: 0 };
    let birth = BirthModel::with_founders(expect, machines, plans, budget);
    let mut world = birth.init_states().remove(0);
    for _ in 0..STEPS {
        let Some(next) = next(&birth, &mut rng, &world) else { break };
        world = next;
        check(&birth, &world, seed);
    }
    let was_born = world.clusters().next().is_some();
    // Only three or more founders tolerate the permanent loss of a machine.
    let gone = (expect > 2).then(|| rng.random_range(0..usize::from(machines)));
    assert!(birth.drain(world.clone(), None), "does not heal, seed {seed}");
    assert!(gone.is_none_or(|gone| birth.drain(world, Some(gone))), "does not heal, seed {seed}");
    was_born
}

#[test]
fn births_of_any_size_survive_random_faults() {
    let start = Instant::now();
    let walks = 120 << depth();
    let mut total = 0;
    for (expect, machines) in [(1, 1), (2, 3), (3, 5), (4, 6), (5, 5), (5, 8), (7, 9)] {
        let born = (0..walks).filter(|seed| walk(expect, machines, *seed)).count();
        assert!(born > 0, "no walk with {expect} founders came to a birth");
        total += walks;
    }
    report(format_args!("{total} walks of {STEPS} steps in {:.1?}", start.elapsed()));
}
