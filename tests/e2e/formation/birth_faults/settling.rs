//! The proposer has voted and is gone; whoever settles what it left is killed in the midst of that.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use muster_tests::lab::Process;
use muster_tests::{Plan, until};

use super::founders::{Founders, Missed};
use super::kills::until_it_happens;
use super::matrix::{OF_A_SETTLER, PROPOSER, either};

/// Those that are tried each time; [`OF_A_SETTLER`] in the soak.
const USUAL: [&str; 8] = [
    "birth.persist.inquired.before",
    "birth.send.inquire.before",
    "birth.send.inquiry-reply.before",
    "birth.persist.abandoned.before",
    "birth.send.settle.before",
    "birth.persist.free.before",
    "birth.send.vote.before",
    "birth.send.abandoned.after",
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
        let dead = first_dead(&mut founders, &others, place)?;
        founders.start_the_dead(&[dead])?;
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

/// The same, and the settler that dies does not return until all is done: the proposer does, and
/// the two that are left settle what the dead one left, or begin anew with the machine to spare.
fn a_settler_is_done_without(place: &str) {
    until_it_happens(&format!("{place}-settler-gone"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
        let [proposer, others @ .., spare] = &founders.ranked.clone()[..] else {
            unreachable!("four machines")
        };
        founders.arm(proposer, "birth.persist.certified.after")?;
        others.iter().try_for_each(|name| founders.arm(name, place))?;
        if let Err(missed) = founders.died(proposer)? {
            return Ok(Err(missed));
        }
        // Not before: the proposer might have chosen it for a founder.
        founders.cluster.start(spare)?;
        let dead = first_dead(&mut founders, others, place)?;
        founders.died(&dead)?.map_err(|Missed| anyhow!("{dead} was seen dead and runs"))?;
        founders.cluster.start(proposer)?;
        let left = founders.except(&[&dead]);
        let start = Instant::now();
        let in_it = |founders: &Founders| -> Result<bool> {
            let clusters = founders.on_disk()?;
            Ok(left.iter().all(|name| clusters.contains_key(name)))
        };
        while !in_it(&founders)? {
            // The other one may come to that place too.
            founders.start_the_dead(&others_than(others, &dead))?;
            let told = || founders.told(&left);
            ensure!(start.elapsed() < SETTLED, "not settled without {dead}: {}", told());
            std::thread::sleep(Duration::from_millis(50));
        }
        founders.start_the_dead(&others_than(others, &dead))?;
        founders.in_one_cluster(&left)?;
        founders.serves(2)?;
        founders.cluster.start(&dead)?;
        healthy(&mut founders, &others_than(others, &dead))?;
        Ok(Ok(()))
    });
}

fn others_than(names: &[String], one: &str) -> Vec<String> {
    names.iter().filter(|name| *name != one).cloned().collect()
}

/// Waits until one of these has died; chance decides which.
fn first_dead(founders: &mut Founders, names: &[String], place: &str) -> Result<String> {
    until(&format!("a death at {place}"), SETTLED, || {
        let mut runs = |name: &String| {
            let process = &mut founders.cluster.node_mut(name).process;
            process.as_mut().is_some_and(Process::is_running)
        };
        names.iter().find(|name| !runs(name)).cloned().ok_or("both run")
    })
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
    either("settlers killed and back at once", &USUAL, &OF_A_SETTLER, |place| {
        kill_a_settler(place);
    });
}

#[test]
fn whoever_settles_a_birth_may_die_for_good() {
    let fixed = ["birth.send.settle.before"];
    either("settlers killed for good", &fixed, &OF_A_SETTLER, |place| {
        a_settler_is_done_without(place);
    });
}
