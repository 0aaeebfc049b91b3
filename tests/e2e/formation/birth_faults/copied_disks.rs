//! Disks that are copied or restored together with the identity on them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::lab::run;
use muster_tests::wait::always;
use muster_tests::{Plan, scenario, until};
use musterd::prepare;
use musterd::state_dir::StateDir;

use super::founders::Founders;

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::remove_dir_all(to).ok();
    run("cp", &["-a", &from.display().to_string(), &to.display().to_string()])?;
    Ok(())
}

#[test]
fn machines_with_one_identity_found_nothing_and_name_each_other_until_one_is_wiped() {
    scenario("birth-copied-disk", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(4).expect(3))?;
        let state =
            |founders: &Founders, name: &str| founders.cluster.node(name).host.dir().join("state");
        let (first, second) = (state(&founders, "cp-1"), state(&founders, "cp-2"));
        copy(&first, &second)?;
        founders.cluster.start_all()?;
        let all = founders.ranked.clone();
        founders.await_waiting_for(&all, "to have an identity each")?;
        always("nothing is founded", Duration::from_secs(4), || {
            match founders.cluster_ids_on_disk() {
                Ok(clusters) if clusters.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        founders.cluster.kill("cp-2")?;
        std::fs::remove_dir_all(&second)?;
        prepare::identity::open(&StateDir::open(&second)?, false)?;
        founders.cluster.start("cp-2")?;
        founders.all_healthy()
    });
}

/// A machine is restored to a disk image from before the birth, with its key and without a record
/// of its vote. It must not vote as if it were new.
#[test]
fn a_founder_put_back_to_before_the_birth_is_refused_with_what_to_do() {
    scenario("birth-old-image", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        let state = founders.cluster.node("cp-2").host.dir().join("state");
        let image = founders.cluster.node("cp-2").host.dir().join("image");
        copy(&state, &image)?;
        founders.cluster.start_all()?;
        founders.all_healthy()?;
        founders.cluster.kill("cp-2")?;
        copy(&image, &state)?;
        founders.cluster.start("cp-2")?;
        let log = founders.cluster.node("cp-2").host.dir().join("musterd.log");
        until("cp-2 to say that it is refused, and what to do", HEALTHY, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("musterctl node remove cp-2") { Ok(()) } else { Err(text) }
        })?;
        founders.cluster.kill("cp-2")?;
        let raft = state.join("raft");
        ensure!(!raft.exists(), "it has started a new log: {}", raft.display());
        founders.cluster.ctl(&["node", "remove", "cp-2", "--yes"])?.success()?;
        std::fs::remove_dir_all(&state)?;
        prepare::identity::open(&StateDir::open(&state)?, false)?;
        founders.cluster.start("cp-2")?;
        founders.all_healthy()
    });
}

/// The Raft directory of one founder is deleted. The node once began with an empty one and voted
/// again, although the others relied on what it had acknowledged.
#[test]
fn a_member_whose_raft_state_is_gone_does_not_begin_a_new_one() {
    scenario("birth-raft-gone", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(3))?;
        founders.cluster.start_all()?;
        founders.all_healthy()?;
        founders.cluster.kill("cp-2")?;
        let raft = founders.cluster.node("cp-2").host.dir().join("state/raft");
        std::fs::remove_dir_all(&raft)?;
        founders.cluster.start("cp-2")?;
        let node = founders.cluster.node_mut("cp-2");
        let mut process = node.process.take().context("it was started")?;
        let status = process.wait_exit(HEALTHY)?;
        ensure!(status.code() == Some(78), "{status}");
        let log = std::fs::read_to_string(process.log())?;
        ensure!(log.contains("musterctl node remove"), "it does not say what to do: {log}");
        ensure!(!raft.exists(), "it has started a new log");
        founders.serves(2)
    });
}
