//! A cluster that starts its etcd with a snapshot, and a founder that is killed before that.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::output_of;
use muster_tests::{Cluster, Lab, PausedEtcd, PausedStep, Plan, scenario, until};

/// Takes two snapshots of a cluster, with the key `kept` in both.
fn snapshots(lab: &Lab, to: &Path) -> Result<[String; 2]> {
    let mut cluster = Cluster::plan(lab, &Plan::of(1))?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    let take = |name: &str| -> Result<String> {
        cluster.etcdctl(&["put", "kept", name])?.success()?;
        let file = to.join(name).display().to_string();
        cluster.ctl(&["etcd", "snapshot", &file])?.success()?;
        Ok(file)
    };
    Ok([take("first")?, take("second")?])
}

/// Reads a key from one member's own data, without a quorum.
fn kept_on(cluster: &Cluster, name: &str) -> Result<String> {
    // This call also creates the credentials.
    cluster.etcdctl(&["get", "kept"])?.success()?;
    let at = format!("https://{}:2379", cluster.node(name).host.address());
    let script = ". \"$0/etcdctl.env\"; export ETCDCTL_ENDPOINTS=\"$1\"; exec etcdctl get kept \
                  --consistency=s --print-value-only";
    let mut command = cluster.operator.command("sh");
    command.args(["-c", script]).arg(cluster.operator.dir().join("etcd-client")).arg(at);
    Ok(output_of(&mut command)?.success()?.trim_end().to_owned())
}

fn waiting_for(cluster: &Cluster, name: &str) -> Result<String, String> {
    let output = cluster.ctl_at(name, &["status", "-n", name, "-o", "json"]);
    let status =
        output.and_then(muster_tests::ctl::CommandOutput::json).map_err(|e| format!("{e:#}"))?;
    Ok(status["nodes"][0]["waitingFor"].as_str().unwrap_or_default().to_owned())
}

/// A founder that restarted before its etcd had started was already a member, and took that as a
/// sign that etcd had started. It dropped the snapshot and started an empty member with the id of
/// the full one, in an etcd whose other members had the data.
#[test]
fn a_founder_killed_before_its_etcd_began_never_begins_with_nothing() {
    scenario("restore", |lab| {
        let given = tempfile::tempdir()?;
        let mut files = None;
        scenario("snapshots", |old| {
            files = Some(snapshots(old, given.path())?);
            Ok(())
        });
        let [snapshot, other] = files.context("no snapshots")?;
        let restore = ["--restore-etcd", snapshot.as_str()];

        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        // A worker has nothing to restore and delays no other node.
        cluster.start("worker-1")?;
        let paused = PausedEtcd::on(&cluster, "cp-1", PausedStep::Restore)?;
        let (slow, usual) = (paused.config.clone(), cluster.config.clone());
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.start_with("cp-2", &usual, &restore)?;
        cluster.start_with("cp-3", &usual, &restore)?;
        paused.until_reached()?;
        let state = cluster.node("cp-1").host.dir().join("state");
        ensure!(state.join("membership.json").exists(), "the restore began before it was a member");
        cluster.kill("cp-1")?;

        // Without the option it knows the agreed snapshot, starts no etcd and reports what to do.
        cluster.start_with("cp-1", &slow, &[])?;
        until("status to say what to do", HEALTHY, || match waiting_for(&cluster, "cp-1") {
            Ok(words) if words.contains("--restore-etcd FILE") => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        ensure!(!state.join("etcd/g0").exists(), "etcd was started without the snapshot");
        cluster.kill("cp-1")?;

        // Another snapshot is not the agreed one.
        cluster.start_with("cp-1", &slow, &["--restore-etcd", &other])?;
        let node = cluster.node_mut("cp-1");
        let mut process = node.process.take().context("the node is not running")?;
        let ended = process.wait_exit(Duration::from_secs(30))?;
        ensure!(ended.code() == Some(78), "{ended}");
        let log = fs::read_to_string(process.log())?;
        ensure!(log.contains("same file as on the other founders"), "{log}");

        paused.resume()?;
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.until_healthy()?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            ensure!(kept_on(&cluster, name)? == "first", "{name} lacks the snapshot's data");
        }
        // Once etcd has started, the option and the file have no effect.
        cluster.kill("cp-1")?;
        fs::remove_file(&snapshot)?;
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.until_healthy()?;
        ensure!(kept_on(&cluster, "cp-1")? == "first", "a restart has lost the data");
        let log = fs::read_to_string(cluster.node("cp-1").host.dir().join("musterd.log"))?;
        let begun = log.matches("etcd restored from the given snapshot").count();
        ensure!(begun == 1, "logged {begun} times that etcd was restored from the snapshot");
        Ok(())
    });
}
