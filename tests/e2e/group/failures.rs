//! Faults of a running cluster (the failure table of docs/design/10-failures.md).

use anyhow::{Result, ensure};
use muster_tests::address_change::AddressChange;
use muster_tests::cluster::HEALTHY;
use muster_tests::{Cluster, Discovery, Plan, scenario, until};

fn leader(cluster: &Cluster) -> Result<String> {
    until("a leader", HEALTHY, || {
        let members = cluster.members().map_err(|e| format!("{e:#}"))?;
        members["leader"].as_str().map(str::to_owned).ok_or_else(|| members.to_string())
    })
}

/// Makes one acknowledged write through any node.
fn write(cluster: &Cluster, description: &str) -> Result<()> {
    let args = ["token", "create", "--role", "worker", "--description", description];
    cluster.ctl(&args)?.success().map(|_| ())
}

#[test]
fn the_leader_is_killed_and_the_cluster_continues() {
    scenario("leader-killed", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        write(&cluster, "before")?;
        let old = leader(&cluster)?;
        cluster.kill(&old)?;
        write(&cluster, "during")?;
        ensure!(leader(&cluster)? != old, "{old} is killed and still reported as leader");
        let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.success()?;
        ensure!(tokens.contains("before") && tokens.contains("during"), "{tokens}");
        cluster.start(&old)?;
        cluster.until_healthy()
    });
}

#[test]
fn all_nodes_lose_power_and_return_without_any_discovery() {
    scenario("power-loss", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1).discovery(Discovery::Mdns))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        write(&cluster, "kept")?;
        cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
        let before = cluster.members()?["members"]
            .as_array()
            .map(|l| l.iter().map(|m| m["id"].clone()).collect::<Vec<_>>());
        for name in cluster.names() {
            cluster.kill(&name)?;
        }
        cluster.disable_discovery()?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let after = cluster.members()?["members"]
            .as_array()
            .map(|l| l.iter().map(|m| m["id"].clone()).collect::<Vec<_>>());
        ensure!(before == after, "{before:?} became {after:?}");
        let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.success()?;
        ensure!(tokens.contains("kept"), "an acknowledged write is gone: {tokens}");
        let value = cluster.etcdctl(&["get", "kept", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "yes", "etcd lost a write: {value:?}");
        Ok(())
    });
}

#[test]
fn a_minority_refuses_writes_and_says_so_and_heals_by_itself() {
    scenario("minority", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let cut = leader(&cluster)?;
        let others: Vec<_> = cluster.names().into_iter().filter(|n| *n != cut).collect();
        let hosts: Vec<_> = others.iter().map(|n| cluster.node(n).host.clone()).collect();
        lab.partition(&[&cluster.node(&cut).host], &hosts.iter().collect::<Vec<_>>())?;
        until("the majority to elect another leader", HEALTHY, || {
            let output = cluster.ctl_at(&others[0], &["members", "-o", "json"]);
            let members = output
                .and_then(muster_tests::ctl::CommandOutput::json)
                .map_err(|e| format!("{e:#}"))?;
            match members["leader"].as_str() {
                Some(new) if new != cut && members["stale"] == false => Ok(()),
                _ => Err(members.to_string()),
            }
        })?;
        let refused = cluster.ctl_at(&cut, &["token", "create", "--role", "worker"])?;
        ensure!(refused.code != Some(0), "a minority took a write: {}", refused.out);
        ensure!(refused.err.contains("majority"), "it does not say why: {}", refused.err);
        // `health` reports and does not time out: an operator asks for the cause now.
        let ill = cluster.ctl_at(&cut, &["health"])?;
        let text = format!("{}{}", ill.out, ill.err);
        ensure!(ill.code == Some(3) && text.contains("raft has a leader"), "{ill:?}");
        let stale = cluster.ctl_at(&cut, &["members", "-o", "json"])?.json()?;
        ensure!(stale["stale"] == true, "a minority claims to be current: {stale}");
        let args = ["token", "create", "--role", "worker", "--description", "majority"];
        cluster.ctl_at(&others[0], &args)?.success()?;
        lab.heal()?;
        cluster.until_healthy()?;
        let tokens = cluster.ctl_at(&cut, &["token", "list", "-o", "json"])?.success()?;
        ensure!(tokens.contains("majority"), "{tokens}");
        Ok(())
    });
}

#[test]
fn etcd_is_killed_and_comes_back() {
    scenario("etcd-killed", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let unit = |cluster: &Cluster| -> Result<(u64, u64)> {
            let status = cluster.ctl(&["status", "-o", "json"])?.json()?;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let node = nodes.iter().find(|n| n["name"] == "cp-2").cloned().unwrap_or_default();
            let unit = node["units"][0].clone();
            Ok((unit["pid"].as_u64().unwrap_or(0), unit["restarts"].as_u64().unwrap_or(0)))
        };
        let (pid, _) = unit(&cluster)?;
        ensure!(pid > 1, "status shows no etcd process");
        muster_tests::lab::run("kill", &["-KILL", &pid.to_string()])?;
        until("etcd with another process id", HEALTHY, || match unit(&cluster) {
            Ok((now, restarts)) if now > 1 && now != pid && restarts >= 1 => Ok(()),
            Ok(seen) => Err(format!("{seen:?}")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        cluster.until_healthy()
    });
}

#[test]
fn an_etcd_member_whose_data_is_lost_is_replaced() {
    scenario("etcd-lost", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
        let ids = |cluster: &Cluster| -> Result<Vec<String>> {
            let output = cluster.ctl(&["etcd", "members", "-o", "json"])?.json()?;
            let list = output["members"].as_array().cloned().unwrap_or_default();
            Ok(list.iter().map(|m| m["id"].to_string()).collect())
        };
        let before = ids(&cluster)?;
        cluster.kill("cp-2")?;
        let etcd = cluster.node("cp-2").host.dir().join("state/etcd");
        for entry in std::fs::read_dir(&etcd)?.flatten() {
            if entry.path().join("member").is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        cluster.start("cp-2")?;
        until("three members, one of them new", HEALTHY, || match ids(&cluster) {
            Ok(now) if now.len() == 3 && now.iter().any(|id| !before.contains(id)) => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        cluster.until_healthy()?;
        let value = cluster.etcdctl(&["get", "kept", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "yes", "{value:?}");
        Ok(())
    });
}

#[test]
fn a_node_whose_address_changes_is_the_same_member() {
    scenario("new-address", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let change = AddressChange::before(&cluster, "cp-3")?;
        let new = "10.77.0.201".parse()?;
        cluster.node_mut("cp-3").host.change_address(new)?;
        change.assert_followed(&cluster, new, HEALTHY)?;
        cluster.until_healthy()
    });
}
