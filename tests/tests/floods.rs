//! Too much of everything on both ports of a node of a running cluster, from one hostile host.

#![allow(clippy::print_stderr, reason = "figures that are worth reading")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_tests::ctl::binary;
use muster_tests::footprint::watch;
use muster_tests::{Cluster, Lab, Plan, scenario, until};

/// What the flooded node may grow by at most, in KiB. What strangers may hold is bounded by the
/// places at the gate (256, each with at most 128 KiB under way) and on TCP; the rest is what the
/// allocator keeps of it.
const GROWTH: u64 = 160 << 10;

/// Handles beyond those of a node at rest: places for handshakes over TCP, and some for operators.
const HANDLES: usize = 300;

/// How long the whole flood may take on a busy machine.
const FLOOD: Duration = Duration::from_mins(5);

fn leader(cluster: &Cluster) -> Result<String> {
    let members = cluster.members()?;
    Ok(members["leader"].as_str().context("nobody leads")?.to_owned())
}

/// Floods the node from a host of its own; meanwhile an operator asks the flooded node, and only it,
/// for the cluster's health. Gives how often it answered, and what the flood said of itself.
fn under_flood(cluster: &Cluster, lab: &Lab, node: &str) -> Result<(usize, usize, String)> {
    let mallory = lab.host("mallory")?;
    let to = format!("{}:{}", cluster.node(node).host.address(), muster_proto::DEFAULT_PORT);
    let mut command = mallory.command(binary("attacker")?);
    command.args(["flood", &to]);
    let mut flood = mallory.spawn(command, "flood")?;
    let (mut asked, mut answered, begun) = (0, 0, Instant::now());
    while flood.is_running() {
        ensure!(begun.elapsed() < FLOOD, "the flood does not end");
        asked += 1;
        let members = cluster.ctl_at(node, &["members", "-o", "json"])?;
        answered += usize::from(members.code == Some(0));
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = std::fs::read_to_string(flood.log())?;
    ensure!(flood.ended(Duration::from_secs(1))?.success(), "the flood failed: {said}");
    Ok((asked, answered, said))
}

/// A node that is flooded goes on: memory and handles are bounded, its leader leads on, and
/// operators are answered by it during the flood.
#[test]
fn a_node_that_is_flooded_on_both_ports_goes_on_in_bounded_memory() {
    scenario("flood", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        // The leader is the one whose stumbling would be noticed.
        let victim = leader(&cluster)?;
        let process = cluster.node(&victim).process.as_ref().context("it runs")?.pid();
        let (course, (asked, answered, said)) =
            watch(process, || under_flood(&cluster, lab, &victim))?;
        eprintln!("{said}{victim}, which leads: {course}");
        eprintln!("an operator asked {asked} times meanwhile and was answered {answered} times");
        cluster.until_healthy()?;
        let grown = course.peak.resident.saturating_sub(course.before.resident);
        ensure!(grown < GROWTH, "grown by {grown} KiB: {course}");
        let handles = course.peak.handles.saturating_sub(course.before.handles);
        ensure!(handles < HANDLES, "{handles} more handles: {course}");
        ensure!(answered * 10 >= asked * 8, "{answered} of {asked} questions were answered");
        ensure!(leader(&cluster)? == victim, "the leader has changed");
        until("the handles to be given back", Duration::from_mins(1), || {
            let now = muster_tests::footprint::Footprint::of(process).map_err(|e| e.to_string())?;
            if now.handles < course.before.handles + 20 {
                Ok(())
            } else {
                Err(now.handles.to_string())
            }
        })?;
        for phase in ["noise", "spoilt", "half-open", "sessions", "connections"] {
            ensure!(said.contains(phase), "the flood left out {phase}: {said}");
        }
        cluster.ctl_at(&victim, &["health"])?.success()?;
        Ok(())
    });
}
