//! A founder that does not agree to what it is asked to sign.

use muster_tests::Plan;
use serde_json::json;

use super::founders::Founders;
use super::kills::until_it_happens;
use super::matrix::{OF_A_REFUSER, PROPOSER, SECOND, either};

/// The proposer stands still with its proposal made and not yet sent, while a founder's file is
/// changed: this founder must refuse. It dies as it does, and gets the right file back.
fn kill_a_refuser(place: &str) {
    until_it_happens(&format!("{place}-refuser"), |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let (proposer, refuser) =
            (founders.ranked[PROPOSER].clone(), founders.ranked[SECOND].clone());
        founders.start_armed(&[&proposer], "birth.persist.promised.before:stop")?;
        if let Err(missed) = founders.stopped(&proposer)? {
            return Ok(Err(missed));
        }
        founders.cluster.kill(&refuser)?;
        let right = founders.cluster.config.clone();
        let mut document = founders.cluster.document()?;
        document["cluster"]["founders"] = json!(["cp-1", "cp-2", "cp-3"]);
        founders.cluster.config = right.with_extension("other");
        founders.cluster.write_config(&founders.cluster.config, &document)?;
        founders.arm(&refuser, place)?;
        founders.wait_for(std::slice::from_ref(&refuser), "the same config")?;
        founders.cluster.config = right;
        if let Some(process) = &founders.cluster.node(&proposer).process {
            process.resume()?;
        }
        if let Err(missed) = founders.died(&refuser)? {
            return Ok(Err(missed));
        }
        founders.cluster.start(&refuser)?;
        founders.all_healthy()?;
        Ok(Ok(()))
    });
}

#[test]
fn a_founder_killed_as_it_refuses_returns_and_is_a_founder() {
    let cases = OF_A_REFUSER;
    either("refusers killed and back at once", &cases, &cases, |place| kill_a_refuser(place));
}
