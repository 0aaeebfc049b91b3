//! Cost of each daemon at rest: a control plane of three with one worker, and serf agents.

use std::time::Duration;

use anyhow::Result;

use super::measurement::{Measurement, Samples};
use super::member_view::until_all;
use super::peers::serf::Serf;
use super::usage::{Cost, CostMeter, pid_of};
use super::{Bench, say};
use muster_tests::lab::Lab;
use muster_tests::{Cluster, Plan};

/// Time for daemons to settle before they are measured.
const SETTLE: Duration = Duration::from_secs(5);

/// Targets per daemon: MiB, and percent of a core.
const MEMORY: f64 = 25.0;
const PROCESSOR: f64 = 0.5;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let span = Duration::from_secs(bench.amount(30, 5).into());
    muster(bench, span)?;
    serf(bench, span)
}

fn muster(bench: &mut Bench, span: Duration) -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(3).workers(1))?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    std::thread::sleep(SETTLE);
    say(&format!("idle: watching musterd and etcd for {span:?}"));
    let mut pids = Vec::new();
    let control_planes = ["cp-1", "cp-2", "cp-3"];
    for name in control_planes {
        pids.push(pid_of(&cluster.node(name).host, "musterd")?);
    }
    for name in control_planes {
        pids.push(pid_of(&cluster.node(name).host, "etcd")?);
    }
    pids.push(pid_of(&cluster.node("worker-1").host, "musterd")?);
    let costs_meter = CostMeter::begin(pids)?;
    std::thread::sleep(span);
    let found = costs_meter.end()?;
    add(bench, "musterd, control plane", &found[..3], true);
    add(bench, "musterd, worker", &found[6..], true);
    add(bench, "etcd", &found[3..6], false);
    Ok(())
}

fn serf(bench: &mut Bench, span: Duration) -> Result<()> {
    let lab = Lab::new()?;
    let mut serf = Serf::plan(&lab, 4)?;
    serf.start_all()?;
    let mut views = serf.views();
    until_all("four serf agents to see each other", SETTLE * 4, &mut views, |one| {
        one.seen.len() == 4
    })?;
    std::thread::sleep(SETTLE);
    say(&format!("idle: watching serf for {span:?}"));
    let pids = serf.agents.iter().map(|agent| pid_of(&agent.host, "serf"));
    let costs_meter = CostMeter::begin(pids.collect::<Result<_>>()?)?;
    std::thread::sleep(span);
    let found = costs_meter.end()?;
    add(bench, "serf", &found, false);
    Ok(())
}

fn add(bench: &mut Bench, subject: &str, costs: &[Cost], has_aim: bool) {
    let (mut resident, mut processor) = (Samples::default(), Samples::default());
    let mut anonymous = Samples::default();
    for cost in costs {
        resident.push(cost.memory.resident);
        anonymous.push(cost.memory.anonymous);
        processor.push(cost.processor);
    }
    let own =
        format!("of which {:.1} MiB its own (anonymous), the rest mapped files", anonymous.mean());
    let memory =
        Measurement::spread(("resident memory at rest", subject), "MiB", &resident, 95).note(own);
    let time =
        Measurement::spread(("processor time at rest", subject), "% of a core", &processor, 95);
    let (memory, time) = if has_aim {
        (memory.at_most(MEMORY, "p50 at most 25 MiB"), time.at_most(PROCESSOR, "p50 at most 0.5 %"))
    } else {
        (memory, time)
    };
    bench.report.add(memory);
    bench.report.add(time);
}
