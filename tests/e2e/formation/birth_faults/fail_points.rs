//! The fail points themselves: no effect without the setting, and no start with an invalid one.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_formation::birth::failpoint::FailPointHook;
use muster_tests::{Plan, scenario, until};

use super::founders::Founders;

#[test]
fn a_setting_that_names_no_fail_point_keeps_the_node_from_starting() {
    scenario("birth-failpoint-unknown", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(1))?;
        founders.start_armed(&["cp-1"], "birth.persist.promise.before")?;
        let node = founders.cluster.node_mut("cp-1");
        let mut process = node.process.take().context("it was started")?;
        let status = process.wait_exit(Duration::from_secs(20))?;
        ensure!(status.code() == Some(71), "{status}");
        let log = std::fs::read_to_string(process.log())?;
        ensure!(log.contains(FailPointHook::VARIABLE) && log.contains("promise.before"), "{log}");
        ensure!(founders.cluster_ids_on_disk()?.is_empty(), "a cluster was founded anyway");
        Ok(())
    });
}

#[test]
fn a_node_says_that_a_fail_point_is_armed_and_is_quiet_without_the_setting() {
    scenario("birth-failpoint-armed", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(1).workers(1))?;
        // A message that no birth without faults has.
        founders.start_armed(&["cp-1"], "birth.send.inquiry-reply.before")?;
        founders.cluster.until_healthy()?;
        let log = |name: &str| {
            let path = founders.cluster.node(name).host.dir().join("musterd.log");
            std::fs::read_to_string(path)
        };
        until("the armed node to say so", Duration::from_secs(20), || match log("cp-1") {
            Ok(text) if text.contains("fail point armed") => Ok(()),
            other => Err(other),
        })?;
        ensure!(!log("worker-1")?.contains("fail point"), "{}", log("worker-1")?);
        Ok(())
    });
}
