//! Cost by the number of nodes: 3, 5 and 7 control-plane nodes; 10 to 200 workers. All of them
//! share this machine, so times at the upper end are those of an overloaded machine.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::measurement::{Measurement, Samples};
use super::member_view::{MemberView, until_all};
use super::members::views;
use super::usage::{CostMeter, TrafficMeter, pid_of};
use super::{Bench, healthy, say};
use muster_tests::cluster::HEALTHY;
use muster_tests::lab::Lab;
use muster_tests::{Cluster, Plan};

/// Timeout for all nodes to see all nodes that were started.
const LIMIT: Duration = Duration::from_mins(3);

/// Number of nodes that start at once. 200 nodes that start together on one machine connect to each
/// other at the same moment, and none makes progress. Elsewhere each has its own machine.
const WAVE: usize = 25;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let sizes: &[(u8, u8)] = if bench.quick {
        &[(3, 0), (3, 10)]
    } else {
        &[(3, 0), (5, 0), (7, 0), (3, 10), (3, 40), (3, 100), (3, 200)]
    };
    sizes.iter().try_for_each(|(control_planes, workers)| one(bench, *control_planes, *workers))
}

fn one(bench: &mut Bench, control_planes: u8, workers: u8) -> Result<()> {
    let size = format!("{control_planes} control-plane nodes, {workers} workers");
    say(&format!("growth: {size}"));
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(control_planes).workers(workers))?;
    let mut views = views(&cluster);
    // The control plane comes first in this order.
    let (mut started, mut seen) = (0, Duration::ZERO);
    for wave in cluster.names().chunks(WAVE) {
        wave.iter().try_for_each(|name| cluster.start(name))?;
        let start = Instant::now();
        started += wave.len();
        let all = |one: &MemberView| one.seen.len() == started - 1;
        seen = until_all("all to see all", LIMIT, &mut views[..started], all)? - start;
    }
    let what = format!("{size}: last start to seen by all");
    let measurement = Measurement::one((what, "musterd"), "s", seen.as_secs_f64(), 1);
    bench.report.add(measurement.note(format!("started {WAVE} at a time")));
    healthy(&cluster)?;
    // Waits for work that a start leaves behind: twice as long again, within bounds.
    std::thread::sleep((seen * 2).clamp(Duration::from_secs(5), HEALTHY / 3));
    at_rest(bench, (&lab, &cluster), &size)
}

fn at_rest(bench: &mut Bench, (lab, cluster): (&Lab, &Cluster), size: &str) -> Result<()> {
    let span = Duration::from_secs(bench.amount(10, 3).into());
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let hosts: Vec<_> = nodes.iter().map(|(_, node)| &node.host).collect();
    let pids = hosts.iter().map(|host| pid_of(host, "musterd")).collect::<Result<Vec<_>>>()?;
    let (traffic_meter, costs_meter) = (TrafficMeter::begin(lab, hosts)?, CostMeter::begin(pids)?);
    std::thread::sleep(span);
    let (costs, sent) = (costs_meter.end()?, traffic_meter.end()?);
    for (role, prefix) in [("control plane", "cp-"), ("worker", "worker-")] {
        let (mut memory, mut processor) = (Samples::default(), Samples::default());
        let mut bytes = Samples::default();
        for (at, (name, _)) in nodes.iter().enumerate() {
            if name.starts_with(prefix) {
                memory.push(costs[at].memory.resident);
                processor.push(costs[at].processor);
                bytes.push(sent[at]);
            }
        }
        if memory.is_empty() {
            continue;
        }
        let subject = format!("musterd, {role}");
        let mut add = |what: &str, unit, samples: &Samples| {
            let measurement =
                Measurement::spread((format!("{size}: {what}"), &*subject), unit, samples, 95);
            bench.report.add(measurement);
        };
        add("resident memory at rest", "MiB", &memory);
        add("processor time at rest", "% of a core", &processor);
        add("sent at rest by the host, etcd included", "bytes/s", &bytes);
    }
    Ok(())
}
