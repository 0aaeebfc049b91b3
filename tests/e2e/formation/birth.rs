//! Identical machines form one cluster by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use muster_tests::wait::always;
use muster_tests::{Cluster, Discovery, Plan, scenario, until};
use serde_json::{Value, json};

fn has_members(members: &Value, control_planes: usize, workers: usize) -> bool {
    let Some(list) = members["members"].as_array() else { return false };
    let role = |wanted: &str| list.iter().filter(|m| m["role"] == wanted).count();
    role("control-plane") == control_planes
        && role("worker") == workers
        && list.iter().filter(|m| m["raft"]["voter"] == true).count() == control_planes
        && list.iter().all(|m| m["state"] == "alive")
        && members["stale"] == false
        && members["leader"].is_string()
}

/// Checks that this many etcd members are healthy, with stock `etcdctl` and the credentials of
/// `client-config`.
fn etcd_is_healthy(cluster: &Cluster, members: usize) -> Result<()> {
    let output = cluster.etcdctl(&["endpoint", "health", "--cluster", "-w", "json"])?.json()?;
    let healthy = output.as_array().map(|l| l.iter().filter(|e| e["health"] == true).count());
    ensure!(healthy == Some(members), "etcdctl sees {output}");
    Ok(())
}

fn born_by(discovery: Discovery, name: &str) {
    scenario(name, |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1).discovery(discovery))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let members = cluster.until_members("all four members alive", |m| has_members(m, 3, 1))?;
        ensure!(members["members"].as_array().is_some_and(|l| l.len() == 4), "{members}");
        etcd_is_healthy(&cluster, 3)
    });
}

#[test]
fn founders_find_each_other_by_mdns_alone() {
    born_by(Discovery::Mdns, "mdns");
}

#[test]
fn founders_find_each_other_by_dns_alone() {
    born_by(Discovery::Dns, "dns");
}

#[test]
fn founders_find_each_other_by_static_peers_alone() {
    born_by(Discovery::Static, "static");
}

#[test]
fn founders_may_start_in_any_order_half_a_minute_apart() {
    scenario("staggered", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).discovery(Discovery::Mdns))?;
        cluster.start("cp-3")?;
        std::thread::sleep(Duration::from_secs(12));
        cluster.start("cp-1")?;
        always("no cluster of two", Duration::from_secs(18), || match cluster.ctl(&["members"]) {
            Ok(output) if output.code == Some(0) => Err(output.out),
            _ => Ok(()),
        })?;
        cluster.start("cp-2")?;
        cluster.until_healthy()?;
        etcd_is_healthy(&cluster, 3)
    });
}

#[test]
fn three_of_five_candidates_found_and_two_join() {
    scenario("five", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(5).expect(3).discovery(Discovery::Mdns))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        cluster.until_members("five voters", |m| has_members(m, 5, 0))?;
        until("five healthy etcd members", muster_tests::cluster::HEALTHY, || {
            etcd_is_healthy(&cluster, 5)
        })?;
        let ids: BTreeSet<_> = cluster
            .names()
            .iter()
            .map(|name| {
                Ok(cluster.ctl_at(name, &["status", "-o", "json"])?.json()?["clusterId"]
                    .to_string())
            })
            .collect::<Result<_>>()?;
        ensure!(ids.len() == 1, "more than one cluster: {ids:?}");
        Ok(())
    });
}

#[test]
fn differing_configurations_are_never_born_and_both_sides_name_the_fields() {
    scenario("differing", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        let mut other = cluster.document()?;
        other["cluster"]["clusterName"] = json!("another");
        let other_file = cluster.operator.dir().join("other.yaml");
        cluster.write_config(&other_file, &other)?;
        cluster.start("cp-1")?;
        cluster.start("cp-2")?;
        cluster.start_with("cp-3", &other_file, &[])?;
        for name in ["cp-1", "cp-3"] {
            until("status to name the field that differs", Duration::from_secs(20), || {
                let output = cluster.ctl_at(name, &["status"]).map_err(|e| e.to_string())?;
                let text = format!("{}{}", output.out, output.err);
                if text.contains("cluster.clusterName") { Ok(()) } else { Err(text) }
            })?;
        }
        always("no birth", Duration::from_secs(5), || match cluster.ctl(&["members"]) {
            Ok(output) if output.code == Some(0) => Err(output.out),
            _ => Ok(()),
        })
    });
}

#[test]
fn a_node_with_a_wrong_token_is_refused_and_learns_nothing() {
    scenario("wrong-token", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        let mut document = cluster.document()?;
        let other = muster_pki::token::Token::generate();
        document["machine"]["token"] = json!(*other.expose());
        let file = cluster.node("worker-1").host.dir().join("node.yaml");
        cluster.write_config(&file, &document)?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        cluster.start_with("worker-1", &file, &[])?;
        let log = cluster.node("worker-1").host.dir().join("musterd.log");
        until("the worker to say that its token is refused", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("token") && text.contains("refused") { Ok(()) } else { Err(text) }
        })?;
        let id = cluster.ctl(&["status", "-o", "json"])?.json()?["clusterId"].clone();
        let text = std::fs::read_to_string(&log)?;
        ensure!(
            !text.contains(id.as_str().unwrap_or("?")),
            "the stranger learned the cluster's id"
        );
        ensure!(has_members(&cluster.members()?, 3, 0), "{}", cluster.members()?);
        let audit = cluster.ctl(&["audit", "-o", "json"])?.success()?;
        ensure!(audit.contains("refused"), "the refusal is not in the audit log: {audit}");
        Ok(())
    });
}
