//! A partition that begins exactly at a step of the birth: the founder is paused there, cut off,
//! and continues in the partition. Then the network heals.

use std::time::Duration;

use anyhow::Result;
use muster_tests::wait::always;
use muster_tests::{Host, Plan, scenario};

use super::founders::Founders;
use super::kills::until_reached;
use super::matrix::{PROPOSER, SECOND, THIRD, for_each_case};

/// Machines on the founder's side. There are four: three founders and a spare one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Partition {
    /// None; the others can found without it.
    Alone,
    /// The spare machine: neither side can found another cluster, but the other one can settle.
    WithSpare,
}

/// Duration of a partition that has no condition to wait for.
const PARTITION_DURATION: Duration = Duration::from_secs(4);

/// Cuts the network at one fail point of one founder.
pub(crate) fn cut(place: &str, rank: usize, side: Partition) {
    until_reached(&format!("{place}-{rank}-cut-{side:?}"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
        let stopped = founders.ranked[rank].clone();
        founders.start_armed(&[&stopped], &format!("{place}:stop"))?;
        if let Err(not_reached) = founders.await_stopped(&stopped)? {
            return Ok(Err(not_reached));
        }
        let here = match side {
            Partition::Alone => vec![stopped.clone()],
            Partition::WithSpare => vec![stopped.clone(), founders.ranked[3].clone()],
        };
        let there = founders.all_but(&here.iter().map(String::as_str).collect::<Vec<_>>());
        let hosts = |names: &[String]| -> Vec<Host> {
            names.iter().map(|name| founders.cluster.node(name).host.clone()).collect()
        };
        let (left, right) = (hosts(&here), hosts(&there));
        lab.partition(&left.iter().collect::<Vec<_>>(), &right.iter().collect::<Vec<_>>())?;
        if let Some(process) = &founders.cluster.node(&stopped).process {
            process.resume()?;
        }
        match side {
            Partition::Alone => founders.await_one_cluster(&there).map(|_| ())?,
            Partition::WithSpare => assert_at_most_one(&founders, PARTITION_DURATION)?,
        }
        lab.heal()?;
        founders.all_healthy()?;
        Ok(Ok(()))
    });
}

fn assert_at_most_one(founders: &Founders, lasts: Duration) -> Result<()> {
    always("at most one cluster", lasts, || {
        founders.cluster_ids_on_disk().map(|_| ()).map_err(|error| format!("{error:#}"))
    })
}

#[test]
fn a_founder_cut_off_alone_at_any_step_ends_in_the_one_cluster() {
    let cases = [
        ("birth.persist.promised.before", SECOND),
        ("birth.persist.promised.after", PROPOSER),
        ("birth.send.promise.before", THIRD),
        ("birth.send.propose.after", PROPOSER),
        ("birth.persist.certified.after", PROPOSER),
        ("birth.send.settle.before", PROPOSER),
        ("birth.send.vote.before", SECOND),
        ("birth.persist.born.after", PROPOSER),
    ];
    for_each_case("cut off alone", &cases, |place, rank| cut(place, rank, Partition::Alone));
}

#[test]
fn a_partition_in_which_no_side_can_found_ends_in_one_cluster() {
    let cases = [
        ("birth.send.propose.before", PROPOSER),
        ("birth.persist.certified.after", PROPOSER),
        ("birth.persist.born.before", THIRD),
    ];
    for_each_case("cut off with the spare one", &cases, |place, rank| {
        cut(place, rank, Partition::WithSpare);
    });
}

/// Every machine is cut off from every other, repeatedly: what begins in one gap is settled in the
/// next.
#[test]
fn a_network_that_comes_and_goes_during_the_birth_ends_in_one_cluster() {
    scenario("birth-flapping", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
        founders.start_armed(&[], "")?;
        let hosts: Vec<_> =
            founders.ranked.iter().map(|n| founders.cluster.node(n).host.clone()).collect();
        for round in 0..6 {
            for (at, host) in hosts.iter().enumerate() {
                let others: Vec<_> = hosts.iter().skip(at + 1).collect();
                lab.partition(&[host], &others)?;
            }
            assert_at_most_one(&founders, Duration::from_millis(700))?;
            lab.heal()?;
            assert_at_most_one(&founders, Duration::from_millis(150 * (round + 1)))?;
        }
        founders.all_healthy()
    });
}
