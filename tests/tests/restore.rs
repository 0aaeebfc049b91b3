//! A cluster that begins its etcd with a snapshot, and a founder that is killed before it has.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::said;
use muster_tests::lab::run;
use muster_tests::{Cluster, Lab, Plan, scenario, until};
use serde_json::json;

/// The real etcd with an `etcdctl` beside it whose restores can be held up.
#[derive(Debug)]
struct Tools(PathBuf);

impl Tools {
    fn beside(cluster: &Cluster, name: &str) -> Result<Self> {
        let dir = cluster.node(name).host.dir().join("tools");
        fs::create_dir(&dir)?;
        let real = |program: &str| -> Result<String> {
            Ok(run("sh", &["-c", &format!("command -v {program}")])?.trim().to_owned())
        };
        symlink(real("etcd")?, dir.join("etcd"))?;
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *'snapshot restore'*) d=${{0%/*}}; : > $d/asked\n\
             while [ -e $d/hold ]; do sleep 0.1; done;; esac\nexec {} \"$@\"\n",
            real("etcdctl")?
        );
        fs::write(dir.join("etcdctl"), script)?;
        fs::set_permissions(dir.join("etcdctl"), fs::Permissions::from_mode(0o755))?;
        Ok(Self(dir))
    }

    fn hold(&self) -> Result<()> {
        Ok(fs::write(self.0.join("hold"), "")?)
    }

    fn let_go(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("hold"))?)
    }

    fn until_asked(&self) -> Result<()> {
        let asked = self.0.join("asked");
        until("the restore to begin", HEALTHY, || {
            if asked.exists() { Ok(()) } else { Err("nobody asked for it") }
        })
    }

    /// The cluster's file with this etcd.
    fn config(&self, cluster: &Cluster) -> Result<PathBuf> {
        let mut document = cluster.document()?;
        document["machine"]["etcd"] = json!({"binary": self.0.join("etcd").display().to_string()});
        let file = self.0.join("node.yaml");
        cluster.write_config(&file, &document)?;
        Ok(file)
    }
}

/// Two snapshots of a cluster, with `kept` in both.
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

/// What one member's own data holds, without asking the others.
fn kept_on(cluster: &Cluster, name: &str) -> Result<String> {
    // Also makes the credentials.
    cluster.etcdctl(&["get", "kept"])?.success()?;
    let at = format!("https://{}:2379", cluster.node(name).host.address());
    let script = ". \"$0/etcdctl.env\"; export ETCDCTL_ENDPOINTS=\"$1\"; exec etcdctl get kept \
                  --consistency=s --print-value-only";
    let mut command = cluster.desk.command("sh");
    command.args(["-c", script]).arg(cluster.desk.dir().join("etcd-client")).arg(at);
    Ok(said(&mut command)?.success()?.trim_end().to_owned())
}

fn waiting_for(cluster: &Cluster, name: &str) -> Result<String, String> {
    let said = cluster.ctl_at(name, &["status", "-n", name, "-o", "json"]);
    let status = said.and_then(muster_tests::ctl::Said::json).map_err(|e| format!("{e:#}"))?;
    Ok(status["nodes"][0]["waitingFor"].as_str().unwrap_or_default().to_owned())
}

/// A founder that restarted before its etcd had begun was a member already, and took that for a sign
/// that etcd had begun: it dropped the snapshot and started an empty member with the id of the full
/// one, inside an etcd whose other members held the data.
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

        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        let tools = Tools::beside(&cluster, "cp-1")?;
        tools.hold()?;
        let (slow, usual) = (tools.config(&cluster)?, cluster.config.clone());
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.start_with("cp-2", &usual, &restore)?;
        cluster.start_with("cp-3", &usual, &restore)?;
        tools.until_asked()?;
        let state = cluster.node("cp-1").host.dir().join("state");
        ensure!(state.join("membership.json").exists(), "it restores before it is a member");
        cluster.kill("cp-1")?;

        // Without the option it knows what was agreed, starts no etcd and says what to do.
        cluster.start_with("cp-1", &slow, &[])?;
        until("status to say what to do", HEALTHY, || match waiting_for(&cluster, "cp-1") {
            Ok(words) if words.contains("--restore-etcd FILE") => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        ensure!(!state.join("etcd/g0").exists(), "etcd was started without the snapshot");
        cluster.kill("cp-1")?;

        // Another snapshot is not what was agreed.
        cluster.start_with("cp-1", &slow, &["--restore-etcd", &other])?;
        let node = cluster.node_mut("cp-1");
        let mut process = node.process.take().context("it does not run")?;
        let ended = process.ended(Duration::from_secs(30))?;
        ensure!(ended.code() == Some(78), "{ended}");
        let log = fs::read_to_string(process.log())?;
        ensure!(log.contains("same file as on the other founders"), "{log}");

        tools.let_go()?;
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.until_healthy()?;
        for name in cluster.names() {
            ensure!(kept_on(&cluster, &name)? == "first", "{name} lacks the snapshot's data");
        }
        // Once etcd has begun, the option and the file are of no importance.
        cluster.kill("cp-1")?;
        fs::remove_file(&snapshot)?;
        cluster.start_with("cp-1", &slow, &restore)?;
        cluster.until_healthy()?;
        ensure!(kept_on(&cluster, "cp-1")? == "first", "a restart has lost the data");
        let log = fs::read_to_string(cluster.node("cp-1").host.dir().join("musterd.log"))?;
        let begun = log.matches("etcd begins with the given snapshot").count();
        ensure!(begun == 1, "said {begun} times that etcd begins with the snapshot");
        Ok(())
    });
}
