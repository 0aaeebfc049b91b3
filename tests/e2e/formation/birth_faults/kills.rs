//! A founder is killed at a step of the birth and returns at once or never, with or without a spare
//! machine.

use anyhow::{Context as _, Result, bail};
use muster_tests::{Plan, scenario};

use super::founders::{Founders, NotReached};
use super::matrix::{
    INDISPENSABLE, OF_A_JOINER, OF_A_SIGNER, OF_THE_PROPOSER, PROPOSER, SECOND, THIRD, for_cases,
    for_each_case,
};

/// Time at which the killed founder returns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Return {
    /// Three machines; it returns at once.
    AtOnce,
    /// Four machines; the others serve without it, and it returns at the end.
    AfterBirth,
}

/// Runs a scenario until its fail point is reached. The order of messages may let a founder skip a
/// step.
pub(crate) fn until_reached(
    name: &str,
    story: impl Fn(&muster_tests::Lab) -> Result<Result<(), NotReached>>,
) {
    let mut happened = false;
    for _ in 0..3 {
        scenario(name, |lab| {
            happened = story(lab)?.is_ok();
            Ok(())
        });
        if happened {
            return;
        }
    }
    panic!("{name}: three births did not reach that fail point");
}

/// Kills one founder at one fail point.
pub(crate) fn kill(place: &str, rank: usize, then: Return) {
    let name = format!("{place}-{rank}-{then:?}");
    until_reached(&name, |lab| {
        let machines = match then {
            Return::AtOnce => 3,
            Return::AfterBirth => 4,
        };
        let mut founders = Founders::plan(lab, &Plan::of(machines).expect(3))?;
        let victim = founders.ranked[rank].clone();
        founders.start_armed(&[&victim], place)?;
        if let Err(not_reached) = founders.await_killed(&victim)? {
            return Ok(Err(not_reached));
        }
        if matches!(then, Return::AfterBirth) {
            founders.await_one_cluster(&founders.all_but(&[&victim]))?;
            // Two of three, if the killed one is a member of etcd.
            founders.serves(2)?;
        }
        founders.cluster.start(&victim)?;
        founders.all_healthy().with_context(|| format!("after {victim} was killed at {place}"))?;
        Ok(Ok(()))
    });
}

/// Kills one founder of three permanently at a point where the birth cannot continue without it.
pub(crate) fn check_waits_for(place: &str, rank: usize) {
    until_reached(&format!("{place}-{rank}-wait"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let victim = founders.ranked[rank].clone();
        founders.start_armed(&[&victim], place)?;
        if let Err(not_reached) = founders.await_killed(&victim)? {
            return Ok(Err(not_reached));
        }
        founders.await_waiting_for(&founders.all_but(&[&victim]), "1 more of 3 founders")?;
        let clusters = founders.cluster_ids_on_disk()?;
        if !clusters.is_empty() {
            bail!("born of two founders of three: {clusters:?}");
        }
        founders.cluster.start(&victim)?;
        founders.all_healthy()?;
        Ok(Ok(()))
    });
}

#[test]
fn a_proposer_killed_at_any_step_returns_and_is_a_founder() {
    let cases = OF_THE_PROPOSER.map(|place| (place, PROPOSER));
    for_each_case("proposers killed and back at once", &cases, |place, rank| {
        kill(place, rank, Return::AtOnce);
    });
}

#[test]
fn a_signer_killed_at_any_step_returns_and_is_a_founder() {
    let mut rank = [SECOND, THIRD].into_iter().cycle();
    let cases = OF_A_SIGNER.map(|place| (place, rank.next().unwrap_or(SECOND)));
    for_cases("signers killed and back at once", &cases, &cases, |(place, rank)| {
        kill(place, *rank, Return::AtOnce);
    });
}

#[test]
fn a_founder_killed_for_good_is_done_without() {
    // The first three end in another birth, with the spare machine. The others end in this one.
    let cases = [
        ("birth.persist.promised.after", PROPOSER),
        ("birth.persist.certified.after", PROPOSER),
        ("birth.send.promise.before", THIRD),
        ("birth.send.settle.after", PROPOSER),
        ("birth.persist.born.before", SECOND),
    ];
    for_each_case("killed for good", &cases, |place, rank| kill(place, rank, Return::AfterBirth));
}

#[test]
fn without_a_spare_machine_the_others_wait_for_the_third_and_say_so() {
    let cases = [
        ("birth.persist.promised.before", SECOND),
        ("birth.send.promise.before", THIRD),
        ("birth.persist.certified.after", PROPOSER),
    ];
    for_cases("waited for", &cases, &INDISPENSABLE, |(place, rank)| check_waits_for(place, *rank));
}

/// The fourth of four machines is no founder. It is killed while it persists that it has joined.
#[test]
fn a_machine_killed_as_it_joins_returns_and_is_a_member() {
    let cases = OF_A_JOINER;
    for_cases("joiners killed and back at once", &cases, &cases, |place| {
        until_reached(&format!("{place}-joiner"), |lab| {
            let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
            let joiner = founders.ranked[3].clone();
            founders.start_armed(&[&joiner], place)?;
            if let Err(not_reached) = founders.await_killed(&joiner)? {
                return Ok(Err(not_reached));
            }
            founders.cluster.start(&joiner)?;
            founders.all_healthy()?;
            Ok(Ok(()))
        });
    });
}
