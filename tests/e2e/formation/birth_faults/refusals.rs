//! A founder that refuses to sign a proposal.

use muster_tests::Plan;
use serde_json::json;

use super::founders::Founders;
use super::kills::until_reached;
use super::matrix::{OF_A_REFUSER, PROPOSER, SECOND, for_cases};

/// The proposer is paused with its proposal made and not sent, while a founder's file is changed.
/// This founder must refuse. It is killed while it does, and gets the right file back.
fn check_refuser_killed(place: &str) {
    until_reached(&format!("{place}-refuser"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let (proposer, refuser) =
            (founders.ranked[PROPOSER].clone(), founders.ranked[SECOND].clone());
        founders.start_armed(&[&proposer], "birth.persist.promised.before:stop")?;
        if let Err(not_reached) = founders.await_stopped(&proposer)? {
            return Ok(Err(not_reached));
        }
        founders.cluster.kill(&refuser)?;
        let right = founders.cluster.config.clone();
        let mut document = founders.cluster.document()?;
        document["cluster"]["founders"] = json!(["cp-1", "cp-2", "cp-3"]);
        founders.cluster.config = right.with_extension("other");
        founders.cluster.write_config(&founders.cluster.config, &document)?;
        founders.arm(&refuser, place)?;
        founders.await_waiting_for(std::slice::from_ref(&refuser), "the same config")?;
        founders.cluster.config = right;
        if let Some(process) = &founders.cluster.node(&proposer).process {
            process.resume()?;
        }
        if let Err(not_reached) = founders.await_killed(&refuser)? {
            return Ok(Err(not_reached));
        }
        founders.cluster.start(&refuser)?;
        founders.all_healthy()?;
        Ok(Ok(()))
    });
}

#[test]
fn a_founder_killed_as_it_refuses_returns_and_is_a_founder() {
    let cases = OF_A_REFUSER;
    for_cases("refusers killed and back at once", &cases, &cases, |place| {
        check_refuser_killed(place);
    });
}
