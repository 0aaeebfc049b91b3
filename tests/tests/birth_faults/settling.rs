//! The proposer has voted and is gone; whoever settles what it left is killed in the midst of that.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use muster_tests::Plan;

use crate::founders::Founders;
use crate::kills::until_it_happens;
use crate::matrix::PROPOSER;

/// What the two that are left pass: one of them asks, the other one answers, together they abandon.
const PLACES: [&str; 7] = [
    "birth.persist.inquired.before",
    "birth.send.inquire.before",
    "birth.send.standing.before",
    "birth.persist.abandoned.before",
    "birth.send.settle.before",
    "birth.persist.free.before",
    "birth.send.vote.before",
];

/// How long it may take until all three belong to one cluster.
const SETTLED: Duration = Duration::from_mins(1);

/// Both that are left are armed, since chance decides who asks.
fn kill_a_settler(place: &str) {
    until_it_happens(&format!("{place}-settler"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let proposer = founders.ranked[PROPOSER].clone();
        let others = founders.except(&[&proposer]);
        founders.arm(&proposer, "birth.persist.certified.after")?;
        others.iter().try_for_each(|name| founders.arm(name, place))?;
        if let Err(missed) = founders.died(&proposer)? {
            return Ok(Err(missed));
        }
        let mut dead = 0;
        let start = Instant::now();
        while dead == 0 {
            dead += founders.start_the_dead(&others)?;
            ensure!(start.elapsed() < SETTLED, "nobody died at {place}");
            std::thread::sleep(Duration::from_millis(50));
        }
        founders.cluster.start(&proposer)?;
        let start = Instant::now();
        while founders.on_disk()?.len() < 3 {
            founders.start_the_dead(&others)?;
            let told = || founders.told(&founders.ranked);
            ensure!(start.elapsed() < SETTLED, "not settled after a death at {place}: {}", told());
            std::thread::sleep(Duration::from_millis(50));
        }
        healthy(&mut founders, &others)?;
        Ok(Ok(()))
    });
}

/// Whoever is born and has not told yet may die as late as this.
fn healthy(founders: &mut Founders, others: &[String]) -> Result<()> {
    for _ in 0..20 {
        founders.start_the_dead(others)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    founders.all_healthy()
}

#[test]
fn whoever_settles_a_birth_may_be_killed_at_any_step_of_it() {
    for place in PLACES {
        kill_a_settler(place);
    }
}
