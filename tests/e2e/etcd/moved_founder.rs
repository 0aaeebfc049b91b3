//! A founder whose address changes after the birth and before its etcd has started.

use anyhow::{Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::{Cluster, Lab, PausedEtcd, PausedStep, Plan, until};

fn peer_urls(cluster: &Cluster) -> Result<String, String> {
    let output = cluster.ctl(&["etcd", "members", "-o", "json"]);
    output.and_then(muster_tests::ctl::CommandOutput::success).map_err(|e| format!("{e:#}"))
}

/// etcd's initial cluster had the old address and the unit the new one. etcd refused to start, and
/// nothing ever changed either of them.
fn moves(lab: &Lab, founders: u8) -> Result<()> {
    let mut cluster = Cluster::plan(lab, &Plan::of(founders))?;
    let paused = PausedEtcd::on(&cluster, "cp-1", PausedStep::Start)?;
    cluster.start_with("cp-1", &paused.config, &[])?;
    for name in cluster.names().iter().filter(|name| *name != "cp-1") {
        cluster.start(name)?;
    }
    paused.until_reached()?;
    let old = cluster.node("cp-1").host.address().to_string();
    let new = "10.77.0.201";
    cluster.node_mut("cp-1").host.change_address(new.parse()?)?;
    cluster.until_members("cp-1 at its new address", |members| {
        let list = members["members"].as_array().cloned().unwrap_or_default();
        let has_moved = |address: &str| address.starts_with(new);
        list.iter().any(|m| m["name"] == "cp-1" && m["address"].as_str().is_some_and(has_moved))
    })?;
    paused.resume()?;
    cluster.until_healthy()?;
    until("etcd's peer URL to follow", HEALTHY, || match peer_urls(&cluster)? {
        urls if urls.contains(&format!("{new}:2380")) => Ok(()),
        urls => Err(urls),
    })?;
    let urls = peer_urls(&cluster).map_err(anyhow::Error::msg)?;
    ensure!(!urls.contains(&format!("{old}:2380")), "the old URL is still there: {urls}");
    cluster.until_healthy()
}

#[test]
fn the_only_founder_moves_before_its_etcd_has_begun() {
    muster_tests::scenario("moved-alone", |lab| moves(lab, 1));
}

#[test]
fn one_of_three_founders_moves_before_its_etcd_has_begun() {
    muster_tests::scenario("moved-one-of-three", |lab| moves(lab, 3));
}
