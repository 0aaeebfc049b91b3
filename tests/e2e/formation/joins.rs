//! Joins, removals, and removed nodes that come back.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_tests::{Cluster, Plan, scenario, until};
use serde_json::Value;

fn voters(members: &Value) -> usize {
    members["members"]
        .as_array()
        .map_or(0, |list| list.iter().filter(|m| m["raft"]["voter"] == true).count())
}

fn find<'a>(members: &'a Value, name: &str) -> Option<&'a Value> {
    members["members"].as_array()?.iter().find(|m| m["name"] == name)
}

fn until_log(cluster: &Cluster, node: &str, words: &str) -> Result<()> {
    let log = cluster.node(node).host.dir().join("musterd.log");
    until(&format!("{node} to log {words:?}"), Duration::from_secs(30), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains(words) { Ok(()) } else { Err(text.lines().last().map(str::to_owned)) }
    })
}

#[test]
fn two_control_plane_nodes_and_five_workers_join_at_once() {
    scenario("join-storm", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(5).expect(3).workers(5))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        for name in cluster.names() {
            if cluster.node(&name).process.is_none() {
                cluster.start(&name)?;
            }
        }
        cluster.until_members("ten members, five voters", |m| {
            m["members"].as_array().is_some_and(|l| l.len() == 10) && voters(m) == 5
        })?;
        cluster.until_healthy()?;
        let etcd = cluster.ctl(&["etcd", "members", "-o", "json"])?.json()?;
        let list = etcd["members"].as_array().cloned().unwrap_or_default();
        ensure!(list.len() == 5 && list.iter().all(|m| m["learner"] == false), "{etcd}");
        Ok(())
    });
}

#[test]
fn a_removed_node_is_out_at_once_and_cannot_return_with_its_old_identity() {
    scenario("removed", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(4).expect(3).workers(1))?;
        cluster.start_all()?;
        cluster.until_members("four voters and a worker", |m| {
            voters(m) == 4 && find(m, "worker-1").is_some()
        })?;
        cluster.until_healthy()?;
        for name in ["worker-1", "cp-4"] {
            cluster.ctl(&["node", "remove", name, "--yes"])?.success()?;
            until_log(&cluster, name, "was removed from the cluster")?;
        }
        cluster.until_members("three voters", |m| voters(m) == 3 && find(m, "cp-4").is_none())?;
        cluster.until_healthy()?;
        let etcd = cluster.ctl(&["etcd", "members", "-o", "json"])?.json()?;
        ensure!(etcd["members"].as_array().is_some_and(|l| l.len() == 3), "{etcd}");
        for name in ["worker-1", "cp-4"] {
            cluster.kill(name)?;
            let log = cluster.node(name).host.dir().join("musterd.log");
            std::fs::rename(&log, log.with_extension("before.log"))?;
            cluster.start(name)?;
            until_log(&cluster, name, "was removed from the cluster")?;
        }
        let members = cluster.members()?;
        ensure!(members["members"].as_array().is_some_and(|l| l.len() == 3), "{members}");
        Ok(())
    });
}

#[test]
fn a_control_plane_of_three_becomes_one_of_two_and_of_one_and_the_last_stays() {
    scenario("shrinking", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
        for (name, left) in [("cp-3", 2), ("cp-2", 1)] {
            cluster.ctl(&["node", "remove", name, "--yes"])?.success()?;
            let again = cluster.ctl(&["node", "remove", name, "--yes"])?.failure(1)?;
            ensure!(again.contains("no member has the name"), "{again}");
            cluster.until_members("one voter less", |m| voters(m) == left)?;
            cluster.until_healthy()?;
        }
        let last = cluster.ctl(&["node", "remove", "cp-1", "--force", "--yes"])?.failure(1)?;
        ensure!(last.contains("cp-1 is the last control-plane node"), "{last}");
        cluster.until_healthy()?;
        let value = cluster.etcdctl(&["get", "kept", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "yes", "{value:?}");
        Ok(())
    });
}

#[test]
fn a_wiped_machine_under_a_taken_name_is_refused_with_the_command_that_frees_it() {
    scenario("wiped", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let members = cluster.until_members("four", |m| find(m, "worker-1").is_some())?;
        let old = find(&members, "worker-1").map(|m| m["id"].clone());
        cluster.kill("worker-1")?;
        std::fs::remove_dir_all(cluster.node("worker-1").host.dir().join("state"))?;
        cluster.start("worker-1")?;
        until_log(&cluster, "worker-1", "musterctl node remove worker-1")?;
        cluster.ctl(&["node", "remove", "worker-1", "--yes"])?.success()?;
        cluster.until_members("worker-1 to be back as a new node", |m| {
            find(m, "worker-1")
                .is_some_and(|w| Some(&w["id"]) != old.as_ref() && w["state"] == "alive")
        })?;
        Ok(())
    });
}

#[test]
fn a_token_admits_only_what_it_is_for() {
    scenario("tokens", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(3))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        let create = |more: &[&str]| -> Result<String> {
            let mut args = vec!["token", "create", "-o", "json"];
            args.extend(more);
            let made = cluster.ctl(&args)?.json()?;
            Ok(made["token"].as_str().unwrap_or_default().to_owned())
        };
        let bound = create(&["--role", "worker", "--node-name", "worker-2", "--uses", "1"])?;
        let cp_only = create(&["--role", "control-plane"])?;
        let revoked = create(&["--role", "worker"])?;
        let id = revoked.split('.').next().unwrap_or_default().to_owned();
        cluster.ctl(&["token", "revoke", &id])?.success()?;
        let mut files = Vec::new();
        for (name, token) in [("worker-1", &cp_only), ("worker-2", &bound), ("worker-3", &revoked)]
        {
            let mut document = cluster.document()?;
            document["machine"]["token"] = Value::String(token.clone());
            let file = cluster.node(name).host.dir().join("node.yaml");
            cluster.write_config(&file, &document)?;
            files.push((name, file));
        }
        for (name, file) in &files {
            cluster.start_with(name, file, &[])?;
        }
        cluster.until_members("worker-2 with its own token", |m| find(m, "worker-2").is_some())?;
        until_log(&cluster, "worker-1", "does not admit a worker")?;
        until_log(&cluster, "worker-3", "refused")?;
        let members = cluster.members()?;
        ensure!(find(&members, "worker-1").is_none(), "a control-plane token admitted a worker");
        ensure!(find(&members, "worker-3").is_none(), "a revoked token admitted a worker");
        let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.json()?.to_string();
        ensure!(tokens.contains("used-up") && tokens.contains("revoked"), "{tokens}");
        let secret = bound.split('.').nth(1).unwrap_or("?");
        ensure!(!tokens.contains(secret), "a listing shows a secret");
        Ok(())
    });
}
