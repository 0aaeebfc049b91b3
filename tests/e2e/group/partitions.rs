//! Partitions of every shape, paused leaders and wrong clocks: named scenarios of a running group.
//! (A minority that is cut off: failures.rs.)

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::CommandOutput;
use muster_tests::{Cluster, Host, Lab, Plan, report, scenario, until};
use serde_json::Value;

fn healthy(lab: &Lab, plan: &Plan) -> Result<Cluster> {
    let mut cluster = Cluster::plan(lab, plan)?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    Ok(cluster)
}

/// Returns the leader, as a node with a confirmed majority reports it.
fn leader_at(cluster: &Cluster, node: &str) -> Result<String, String> {
    let output = cluster.ctl_at(node, &["members", "-o", "json"]).and_then(CommandOutput::json);
    let members = output.map_err(|e| format!("{e:#}"))?;
    match members["leader"].as_str() {
        Some(leader) if members["stale"] == false => Ok(leader.to_owned()),
        _ => Err(members.to_string()),
    }
}

fn leader(cluster: &Cluster) -> Result<String> {
    until("a leader", HEALTHY, || leader_at(cluster, "cp-1"))
}

fn others(cluster: &Cluster, than: &str) -> Vec<String> {
    cluster.names().into_iter().filter(|name| name != than).collect()
}

fn hosts<'a>(cluster: &'a Cluster, names: &[String]) -> Vec<&'a Host> {
    names.iter().map(|name| &cluster.node(name).host).collect()
}

/// Waits until a write through this node is acknowledged.
fn until_it_writes(cluster: &Cluster, node: &str, description: &str) -> Result<()> {
    let args = ["token", "create", "--role", "worker", "--description", description];
    until(&format!("a write through {node}"), HEALTHY, || {
        let output = cluster.ctl_at(node, &args).map_err(|e| format!("{e:#}"))?;
        if output.code == Some(0) { Ok(()) } else { Err(output.err) }
    })
}

fn refuses_and_says_why(cluster: &Cluster, node: &str) -> Result<()> {
    let refused = cluster.ctl_at(node, &["token", "create", "--role", "worker"])?;
    ensure!(refused.code != Some(0), "{node} took a write without a majority: {}", refused.out);
    ensure!(refused.err.contains("majority"), "{node} does not say why: {}", refused.err);
    Ok(())
}

/// Checks that every node has every token of `written`.
fn all_have(cluster: &Cluster, written: &[&str]) -> Result<()> {
    for name in cluster.names() {
        let tokens = cluster.ctl_at(&name, &["token", "list", "-o", "json"])?.success()?;
        for description in written {
            ensure!(tokens.contains(description), "{name} has lost {description}: {tokens}");
        }
    }
    Ok(())
}

#[test]
fn without_any_majority_every_node_refuses_and_says_so_and_all_recover() {
    scenario("no-majority", |lab| {
        let cluster = healthy(lab, &Plan::of(3))?;
        until_it_writes(&cluster, "cp-1", "before")?;
        lab.isolate_all(&hosts(&cluster, &cluster.names()))?;
        for name in cluster.names() {
            until(&format!("{name} to report stale data"), HEALTHY, || {
                let output =
                    cluster.ctl_at(&name, &["members", "-o", "json"]).and_then(CommandOutput::json);
                let members = output.map_err(|e| format!("{e:#}"))?;
                if members["stale"] == true { Ok(()) } else { Err(members.to_string()) }
            })?;
            refuses_and_says_why(&cluster, &name)?;
        }
        lab.heal()?;
        cluster.until_healthy()?;
        until_it_writes(&cluster, "cp-2", "after")?;
        all_have(&cluster, &["before", "after"])
    });
}

/// Its heartbeats arrive and prevent an election, but no acknowledgement comes back.
#[test]
fn a_leader_that_receives_nothing_is_replaced_while_it_still_sends() {
    scenario("leader-without-inbound", |lab| {
        let cluster = healthy(lab, &Plan::of(3))?;
        let old = leader(&cluster)?;
        let rest = others(&cluster, &old);
        for from in hosts(&cluster, &rest) {
            lab.cut_one_way(from, &cluster.node(&old).host)?;
        }
        replaced(&cluster, &old, &rest[0])?;
        refuses_and_says_why(&cluster, &old)?;
        lab.heal()?;
        cluster.until_healthy()?;
        all_have(&cluster, &["meanwhile"])
    });
}

#[test]
fn a_leader_that_sends_in_vain_is_replaced_while_it_still_receives() {
    scenario("leader-without-outbound", |lab| {
        let cluster = healthy(lab, &Plan::of(3))?;
        let old = leader(&cluster)?;
        let rest = others(&cluster, &old);
        for to in hosts(&cluster, &rest) {
            lab.cut_one_way(&cluster.node(&old).host, to)?;
        }
        replaced(&cluster, &old, &rest[0])?;
        lab.heal()?;
        cluster.until_healthy()?;
        all_have(&cluster, &["meanwhile"])
    });
}

/// Waits for another leader, as `witness` sees it, and for a write under it.
fn replaced(cluster: &Cluster, old: &str, witness: &str) -> Result<()> {
    until(&format!("another leader than {old}"), HEALTHY, || match leader_at(cluster, witness)? {
        new if new != old => Ok(()),
        same => Err(format!("{same} still leads")),
    })?;
    until_it_writes(cluster, witness, "meanwhile")
}

/// The two other nodes do not reach each other. Either of them has a majority with the bridge.
#[test]
fn with_a_bridge_between_two_the_cluster_goes_on() {
    scenario("bridge", |lab| {
        let cluster = healthy(lab, &Plan::of(3))?;
        let old = leader(&cluster)?;
        let rest = others(&cluster, &old);
        let [bridge, far] = hosts(&cluster, &rest)[..] else { unreachable!("three nodes") };
        // First the leader is one of the two ends, then it is the bridge.
        lab.partition(&[&cluster.node(&old).host], &[far])?;
        for number in 0..3 {
            until_it_writes(&cluster, bridge.name(), &format!("end-{number}"))?;
        }
        lab.heal()?;
        lab.partition(&[bridge], &[far])?;
        for number in 0..3 {
            until_it_writes(&cluster, &old, &format!("middle-{number}"))?;
        }
        lab.heal()?;
        cluster.until_healthy()?;
        all_have(&cluster, &["end-0", "end-1", "end-2", "middle-0", "middle-1", "middle-2"])
    });
}

/// Of four voters three can elect. The old leader reaches only one of those three. Its leases would
/// prevent that one from voting indefinitely (openraft issue 2080) if it did not fall silent.
#[test]
fn a_leader_that_reaches_only_the_bridge_does_not_block_the_election() {
    scenario("bridge-lease", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(4).expect(3))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        cluster.start("cp-4")?;
        cluster.until_members("cp-4 to vote", |members| {
            let list = members["members"].as_array().map_or(&[][..], Vec::as_slice);
            list.len() == 4 && list.iter().all(|member| member["raft"]["voter"] == true)
        })?;
        let old = leader(&cluster)?;
        let rest = others(&cluster, &old);
        let (bridge, far) = rest.split_at(1);
        lab.partition(&[&cluster.node(&old).host], &hosts(&cluster, far))?;
        replaced(&cluster, &old, &bridge[0])?;
        until_it_writes(&cluster, &far[1], "far")?;
        lab.heal()?;
        cluster.until_healthy()?;
        all_have(&cluster, &["meanwhile", "far"])
    });
}

/// Maximum number of pauses: three, or more until one read is answered. Refusals alone would not
/// show what the leader would have served.
const PAUSES: usize = 10;

/// The read is sent to the paused leader before it continues. So it is the first thing that the
/// node sees, and as far as it knows it still leads.
#[test]
fn a_paused_leader_that_continues_serves_nothing_old() {
    scenario("paused-leader", |lab| {
        let cluster = healthy(lab, &Plan::of(3))?;
        let mut written = vec!["first".to_owned()];
        until_it_writes(&cluster, "cp-1", "first")?;
        let (mut answered, mut asked) = (0, 0);
        while asked < 3 || (answered == 0 && asked < PAUSES) {
            let round = asked;
            asked += 1;
            let old = leader(&cluster)?;
            let rest = others(&cluster, &old);
            let paused = cluster.node(&old).process.as_ref().context("it runs")?;
            paused.pause()?;
            let description = format!("while-paused-{round}");
            until_it_writes(&cluster, &rest[0], &description)?;
            written.push(description);
            let output = std::thread::scope(|scope| {
                let read = scope.spawn(|| cluster.ctl_at(&old, &["token", "list", "-o", "json"]));
                // Long enough for the request to wait in the paused node's queue, less than
                // musterctl's connection timeout.
                std::thread::sleep(Duration::from_millis(700));
                paused.resume().and_then(|()| read.join().expect("it only runs musterctl"))
            })?;
            if output.code == Some(0) {
                answered += 1;
                for description in &written {
                    ensure!(output.out.contains(description.as_str()), "stale: {}", output.out);
                }
            }
            until_it_writes(&cluster, &old, &format!("after-{round}"))?;
            written.push(format!("after-{round}"));
        }
        report(format_args!("a leader that was paused answered {answered} of {asked} reads"));
        ensure!(answered > 0, "no read was answered: nothing is proved");
        cluster.until_healthy()?;
        all_have(&cluster, &written.iter().map(String::as_str).collect::<Vec<_>>())
    });
}

/// Returns the failed checks of `health`, with their details.
fn findings(cluster: &Cluster) -> Result<Vec<(String, String)>, String> {
    let output = cluster.ctl_at("cp-1", &["health", "-o", "json"]).map_err(|e| format!("{e:#}"))?;
    let health: Value =
        serde_json::from_str(&output.out).map_err(|e| format!("{e}: {output:?}"))?;
    let checks = health["checks"].as_array().ok_or("no checks")?;
    let failed = checks.iter().filter(|check| check["passed"] == false);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(failed.map(|check| (text(&check["name"]), text(&check["detail"]))).collect())
}

fn until_only_the_clocks_of(cluster: &Cluster, expected: &[(&str, &str)]) -> Result<()> {
    until("health to report only the clocks", HEALTHY, || {
        let found = findings(cluster)?;
        match &found[..] {
            [(name, detail)] if name == "clocks agree" => {
                let is_reported = |(node, side): &(&str, &str)| {
                    let start = format!("the clock of {node} is ");
                    detail.split("; ").any(|one| {
                        let off = one.strip_prefix(&start).and_then(|one| one.split_once(" s "));
                        let near = off.and_then(|(seconds, _)| seconds.parse::<u32>().ok());
                        near.is_some_and(|s| (7100..7300).contains(&s)) && one.contains(side)
                    })
                };
                let count = detail.split("; ").count();
                if count == expected.len() && expected.iter().all(is_reported) {
                    Ok(())
                } else {
                    Err(detail.clone())
                }
            }
            _ => Err(format!("{found:?}")),
        }
    })
}

#[test]
fn clocks_two_hours_ahead_are_reported_and_nothing_else_is_wrong() {
    scenario("clocks-ahead", |lab| live_with_clocks(lab, 7200, "ahead of"));
}

#[test]
fn clocks_two_hours_behind_are_reported_and_nothing_else_is_wrong() {
    scenario("clocks-behind", |lab| live_with_clocks(lab, -7200, "behind"));
}

/// The clocks of a founder and a worker are off from their first start. Both take part in birth,
/// join, elections and writes like any other node, and `health` reports their offsets.
fn live_with_clocks(lab: &Lab, seconds: i32, side: &str) -> Result<()> {
    let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
    for name in ["cp-2", "worker-1"] {
        cluster.node(name).host.set_clock(seconds)?;
    }
    cluster.start_all()?;
    cluster.until_members("the worker", |members| {
        members["members"].as_array().is_some_and(|list| list.len() == 4)
    })?;
    let off = [("cp-2", side), ("worker-1", side)];
    until_only_the_clocks_of(&cluster, &off)?;
    // The result must not depend on the leader and its clock.
    for round in 0..2 {
        let old = leader(&cluster)?;
        cluster.kill(&old)?;
        let witness = others(&cluster, &old).remove(0);
        until_it_writes(&cluster, &witness, &format!("without-{round}"))?;
        cluster.start(&old)?;
        until_only_the_clocks_of(&cluster, &off)?;
    }
    cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
    for name in ["cp-2", "worker-1"] {
        cluster.node(name).host.set_clock(0)?;
    }
    cluster.until_healthy()?;
    let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.success()?;
    ensure!(tokens.contains("without-0") && tokens.contains("without-1"), "{tokens}");
    Ok(())
}
