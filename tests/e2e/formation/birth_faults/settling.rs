//! The proposer has voted and is gone. A node that settles its proposal is killed on the way.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use muster_tests::lab::Process;
use muster_tests::{Plan, until};

use super::founders::{Founders, NotReached};
use super::kills::until_reached;
use super::matrix::{OF_A_SETTLER, PROPOSER, for_cases};

/// Points of each run; [`OF_A_SETTLER`] in the soak.
const DEFAULT_POINTS: [&str; 8] = [
    "birth.persist.inquired.before",
    "birth.send.inquire.before",
    "birth.send.inquiry-reply.before",
    "birth.persist.abandoned.before",
    "birth.send.settle.before",
    "birth.persist.free.before",
    "birth.send.vote.before",
    "birth.send.abandoned.after",
];

/// Timeout for all three to belong to one cluster.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Both remaining founders have the fail point, because timing decides which one inquires.
fn check_settler_killed(place: &str) {
    until_reached(&format!("{place}-settler"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let proposer = founders.ranked[PROPOSER].clone();
        let others = founders.all_but(&[&proposer]);
        founders.arm(&proposer, "birth.persist.certified.after")?;
        others.iter().try_for_each(|name| founders.arm(name, place))?;
        if let Err(not_reached) = founders.await_killed(&proposer)? {
            return Ok(Err(not_reached));
        }
        let dead = await_first_killed(&mut founders, &others, place)?;
        founders.restart_killed(&[dead])?;
        founders.cluster.start(&proposer)?;
        let start = Instant::now();
        while founders.cluster_ids_on_disk()?.len() < 3 {
            founders.restart_killed(&others)?;
            let waiting_for_all = || founders.waiting_for_all(&founders.ranked);
            ensure!(
                start.elapsed() < SETTLE_TIMEOUT,
                "not settled after a kill at {place}: {}",
                waiting_for_all()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        healthy(&mut founders, &others)?;
        Ok(Ok(()))
    });
}

/// Like [`check_settler_killed`], but the killed settler returns only at the end. The proposer
/// returns, and the two remaining settle the proposal or found with the spare machine.
fn check_settler_gone(place: &str) {
    until_reached(&format!("{place}-settler-gone"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
        let [proposer, others @ .., spare] = &founders.ranked.clone()[..] else {
            unreachable!("four machines")
        };
        founders.arm(proposer, "birth.persist.certified.after")?;
        others.iter().try_for_each(|name| founders.arm(name, place))?;
        if let Err(not_reached) = founders.await_killed(proposer)? {
            return Ok(Err(not_reached));
        }
        // Not earlier: the proposer might have selected it as a founder.
        founders.cluster.start(spare)?;
        let dead = await_first_killed(&mut founders, others, place)?;
        founders
            .await_killed(&dead)?
            .map_err(|NotReached| anyhow!("{dead} was seen dead and runs"))?;
        founders.cluster.start(proposer)?;
        let left = founders.all_but(&[&dead]);
        let start = Instant::now();
        let in_it = |founders: &Founders| -> Result<bool> {
            let clusters = founders.cluster_ids_on_disk()?;
            Ok(left.iter().all(|name| clusters.contains_key(name)))
        };
        while !in_it(&founders)? {
            // The other one may reach that point too.
            founders.restart_killed(&all_except(others, &dead))?;
            let waiting_for_all = || founders.waiting_for_all(&left);
            ensure!(
                start.elapsed() < SETTLE_TIMEOUT,
                "not settled without {dead}: {}",
                waiting_for_all()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        founders.restart_killed(&all_except(others, &dead))?;
        founders.await_one_cluster(&left)?;
        founders.serves(2)?;
        founders.cluster.start(&dead)?;
        healthy(&mut founders, &all_except(others, &dead))?;
        Ok(Ok(()))
    });
}

fn all_except(names: &[String], one: &str) -> Vec<String> {
    names.iter().filter(|name| *name != one).cloned().collect()
}

/// Waits until one of these is killed; timing decides which.
fn await_first_killed(founders: &mut Founders, names: &[String], place: &str) -> Result<String> {
    until(&format!("a kill at {place}"), SETTLE_TIMEOUT, || {
        let mut runs = |name: &String| {
            let process = &mut founders.cluster.node_mut(name).process;
            process.as_mut().is_some_and(Process::is_running)
        };
        names.iter().find(|name| !runs(name)).cloned().ok_or("both run")
    })
}

/// A node that is born and has not announced it may be killed this late.
fn healthy(founders: &mut Founders, others: &[String]) -> Result<()> {
    for _ in 0..20 {
        founders.restart_killed(others)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    founders.all_healthy()
}

#[test]
fn a_settler_may_be_killed_at_any_step_of_the_settlement() {
    for_cases("settlers killed and back at once", &DEFAULT_POINTS, &OF_A_SETTLER, |place| {
        check_settler_killed(place);
    });
}

#[test]
fn a_settler_may_be_killed_for_good() {
    let fixed = ["birth.send.settle.before"];
    for_cases("settlers killed for good", &fixed, &OF_A_SETTLER, |place| {
        check_settler_gone(place);
    });
}
