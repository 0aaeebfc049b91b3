//! Floods on both ports of a node of a running cluster, from one hostile host.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_tests::ctl::binary;
use muster_tests::report::report;
use muster_tests::resource_usage::measure;
use muster_tests::{Cluster, Host, Plan, exclusive_scenario, until};

/// Maximum memory growth of the flooded node, in KiB; 7 to 12 MiB were measured. Strangers are
/// bounded by the permits of the gate (48 for one source, each with at most 128 KiB in flight) and
/// of TCP. The rest is memory that the allocator keeps.
const GROWTH: u64 = 48 << 10;

/// Minimum of each phase for the flood to count: a quarter to a half of its result on two busy
/// cores.
const PHASES: [(&str, u64); 5] = [
    ("noise", 10_000),
    ("corrupted", 10_000),
    ("half-open", 1_000),
    ("sessions", 40),
    ("connections", 1_000),
];

/// Minimum number of datagrams that the node must have read of the flood's 44,000 and more. The
/// kernel drops the rest.
const READ: u64 = 20_000;

/// Maximum number of additional handles: permits for TCP handshakes, and some for operators.
const HANDLES: usize = 300;

/// Timeout of the flood on a busy machine.
const FLOOD: Duration = Duration::from_mins(5);

fn leader(cluster: &Cluster) -> Result<String> {
    let members = cluster.members()?;
    Ok(members["leader"].as_str().context("no leader")?.to_owned())
}

/// Returns the number of datagrams read so far in a process's network namespace.
fn datagrams_read(pid: u32) -> Result<u64> {
    let counters = std::fs::read_to_string(format!("/proc/{pid}/net/snmp"))?;
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let mut fields = names.split(' ').zip(values.split(' '));
    let (_, value) = fields.find(|(name, _)| *name == "InDatagrams").context("no InDatagrams")?;
    Ok(value.parse()?)
}

/// Floods the node from a separate host. Meanwhile an operator lists the members through the
/// flooded node only. Returns the numbers of requests and replies, and the flood's output.
fn under_flood(cluster: &Cluster, attacker: &Host, node: &str) -> Result<(usize, usize, String)> {
    let to = format!("{}:{}", cluster.node(node).host.address(), muster_types::DEFAULT_PORT);
    let mut command = attacker.command(binary("attacker")?);
    command.args(["flood", &to]);
    let mut flood = attacker.spawn(command, &format!("flood-of-{node}"))?;
    let (mut asked, mut answered, start) = (0, 0, Instant::now());
    while flood.is_running() {
        ensure!(start.elapsed() < FLOOD, "the flood does not end");
        asked += 1;
        let members = cluster.ctl_at(node, &["members", "-o", "json"])?;
        answered += usize::from(members.code == Some(0));
        std::thread::sleep(Duration::from_millis(200));
    }
    let output = std::fs::read_to_string(flood.log())?;
    ensure!(flood.wait_exit(Duration::from_secs(1))?.success(), "the flood failed: {output}");
    Ok((asked, answered, output))
}

/// Checks that every phase reached the target: `PHASE: COUNT of …`.
fn assert_flooded(output: &str) -> Result<()> {
    for (phase, least) in PHASES {
        let line = output.lines().find_map(|line| line.strip_prefix(phase)?.strip_prefix(": "));
        let count = line.and_then(|line| line.split(' ').next()).context("a phase is missing")?;
        ensure!(count.parse::<u64>()? >= least, "{phase} did less than {least}: {output}");
    }
    Ok(())
}

/// Floods a node and checks that it continues in bounded memory and frees what it took.
fn survives_flood(cluster: &Cluster, attacker: &Host, node: &str) -> Result<()> {
    let process = cluster.node(node).process.as_ref().context("the node is not running")?.pid();
    let (read, start) = (datagrams_read(process)?, Instant::now());
    let (usage, (asked, answered, output)) =
        measure(process, || under_flood(cluster, attacker, node))?;
    let read = datagrams_read(process)? - read;
    report(format_args!(
        "{node} under a flood of {} s: {usage}; it has read {read} datagrams; {answered} of \
         {asked} requests of an operator were answered\n{output}",
        start.elapsed().as_secs()
    ));
    assert_flooded(&output)?;
    ensure!(read >= READ, "the node has read {read} datagrams of the flood");
    let grown = usage.peak.resident.saturating_sub(usage.before.resident);
    ensure!(grown < GROWTH, "grown by {grown} KiB: {usage}");
    let handles = usage.peak.handles.saturating_sub(usage.before.handles);
    ensure!(handles < HANDLES, "{handles} more handles: {usage}");
    ensure!(asked >= 5, "only {asked} requests were made");
    ensure!(answered * 10 >= asked * 8, "{answered} of {asked} requests were answered");
    until("the handles to be closed", Duration::from_mins(1), || {
        let now =
            muster_tests::resource_usage::ResourceUsage::of(process).map_err(|e| e.to_string())?;
        if now.handles < usage.before.handles + 20 { Ok(()) } else { Err(now.handles.to_string()) }
    })?;
    cluster.ctl_at(node, &["health"])?.success()?;
    Ok(())
}

/// Floods the leader, where a fault would be most visible, and a worker, which relays operators.
/// Runs alone on the machine, because it measures memory and replies.
#[test]
fn a_node_that_is_flooded_on_both_ports_continues_in_bounded_memory() {
    exclusive_scenario("flood", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        cluster.start_all()?;
        cluster.until_members("the worker", |members| members.to_string().contains("worker-1"))?;
        cluster.until_healthy()?;
        let (attacker, victim) = (lab.host("attacker")?, leader(&cluster)?);
        survives_flood(&cluster, &attacker, &victim)?;
        ensure!(leader(&cluster)? == victim, "the leader has changed");
        survives_flood(&cluster, &attacker, "worker-1")?;
        cluster.until_healthy()
    });
}
