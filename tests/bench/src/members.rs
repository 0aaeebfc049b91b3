//! Forty members: time until all see all, time until all notice a killed one, false alarms under
//! loss, traffic at rest. Next to it forty encrypted serf agents. Each node's view is read from its
//! log.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::measurement::{Measurement, Samples};
use super::member_view::{MemberEvent, MemberView, until_all};
use super::peers::serf::Serf;
use super::usage::TrafficMeter;
use super::{Bench, healthy, say};
use muster_tests::lab::{Host, Lab};
use muster_tests::{Cluster, Plan};

const MEMBERS: usize = 40;
const CONTROL_PLANES: u8 = 3;
const WORKERS: u8 = 37;

/// Timeout of each step.
const LIMIT: Duration = Duration::from_mins(2);

/// Rest before traffic is counted.
const SETTLE: Duration = Duration::from_secs(10);

/// Percentage of lost frames while false alarms are counted.
const LOSS: u8 = 20;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    muster(bench)?;
    serf(bench)
}

/// Parses `… INFO member alive peer=abc` in the log of `musterd`.
pub(super) fn read(line: &str) -> Option<MemberEvent> {
    let (text, peer) = line.split_once(" peer=")?;
    let peer = peer.split(' ').next()?.to_owned();
    if text.ends_with("member alive") {
        Some(MemberEvent::Seen(peer))
    } else if text.ends_with("member down") {
        Some(MemberEvent::Gone(peer))
    } else {
        None
    }
}

/// Returns a view per node of a cluster.
pub(super) fn views(cluster: &Cluster) -> Vec<MemberView> {
    let log = |host: &Host| host.dir().join("musterd.log");
    cluster.nodes.values().map(|node| MemberView::of(&log(&node.host), read)).collect()
}

fn muster(bench: &mut Bench) -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(CONTROL_PLANES).workers(WORKERS))?;
    let mut views = views(&cluster);
    let all = |one: &MemberView| one.seen.len() == MEMBERS - 1;
    say("members: starting 40 musterd");
    cluster.start_all()?;
    let start = Instant::now();
    let seen = until_all("40 musterd to see each other", LIMIT, &mut views, all)?;
    let what = "40 members: last start to seen by all";
    let first = (seen - start).as_secs_f64();
    let measurement = Measurement::one((what, "musterd, first start"), "s", first, 1);
    bench
        .report
        .add(measurement.note("the cluster's birth, its authorities and 37 joins included"));
    healthy(&cluster)?;

    let mut again = Samples::default();
    for time in 1..=bench.amount(3, 1) {
        say(&format!("members: starting 40 musterd again, {time}"));
        stop_all(&mut cluster)?;
        views.iter_mut().try_for_each(MemberView::reset)?;
        cluster.start_all()?;
        let start = Instant::now();
        again
            .push_seconds(until_all("40 to see each other again", LIMIT, &mut views, all)? - start);
        healthy(&cluster)?;
    }
    let measurement = Measurement::spread((what, "musterd, all restarted"), "s", &again, 95);
    bench.report.add(measurement.at_most(0.8, "p50 within 0.8 s"));

    let mut missed = Samples::default();
    for time in 1..=bench.amount(5, 1) {
        let name = format!("worker-{}", 5 * time);
        say(&format!("members: killing {name}"));
        let id = id_of(&cluster, &name)?;
        cluster.kill(&name)?;
        let start = Instant::now();
        let gone = |one: &MemberView| !one.seen.iter().any(|peer| id.starts_with(peer));
        missed.push_seconds(
            until_all("a killed member to be noticed", LIMIT, &mut views, gone)? - start,
        );
        let at = cluster
            .names()
            .iter()
            .position(|one| *one == name)
            .context("a killed member is in the plan")?;
        views[at].reset()?;
        cluster.start(&name)?;
        until_all("40 to see each other again", LIMIT, &mut views, all)?;
    }
    let what = "40 members: one killed to noticed by all";
    let measurement = Measurement::spread((what, "musterd"), "s", &missed, 95);
    bench.report.add(measurement.at_most(4.0, "p50 within 4 s"));

    std::thread::sleep(SETTLE);
    let (control_planes, workers): (Vec<_>, Vec<_>) =
        cluster.nodes.iter().partition(|(name, _)| name.starts_with("cp-"));
    let hosts = |nodes: &[(&String, &muster_tests::cluster::Node)]| -> Vec<Host> {
        nodes.iter().map(|(_, node)| node.host.clone()).collect()
    };
    traffic(bench, &lab, "musterd, worker", &hosts(&workers))?;
    traffic(bench, &lab, "musterd with etcd, control plane", &hosts(&control_planes))?;
    false_alarms(bench, &lab, "musterd", &mut views)
}

fn serf(bench: &mut Bench) -> Result<()> {
    let lab = Lab::new()?;
    let mut serf = Serf::plan(&lab, u8::try_from(MEMBERS)?)?;
    let mut views = serf.views();
    let all = |one: &MemberView| one.seen.len() == MEMBERS;
    let mut seen = Samples::default();
    for time in 1..=bench.amount(4, 1) {
        say(&format!("members: starting 40 agents of serf, {time}"));
        for agent in &mut serf.agents {
            agent.process = None;
        }
        views.iter_mut().try_for_each(MemberView::reset)?;
        serf.start_all()?;
        let start = Instant::now();
        seen.push_seconds(
            until_all("40 serf agents to see each other", LIMIT, &mut views, all)? - start,
        );
    }
    let measurement =
        Measurement::spread(("40 members: last start to seen by all", "serf"), "s", &seen, 95);
    bench
        .report
        .add(measurement.note("each joins by the first, which runs before the others start"));

    let mut missed = Samples::default();
    for time in 1..=usize::try_from(bench.amount(3, 1))? {
        let at = 5 * time;
        let name = serf.agents[at].name.clone();
        say(&format!("members: killing {name}"));
        serf.agents[at].process = None;
        let start = Instant::now();
        views[at].reset()?;
        let gone = |one: &MemberView| !one.seen.contains(&name);
        missed.push_seconds(
            until_all("a killed agent to be noticed", LIMIT, &mut views, gone)? - start,
        );
        serf.start(at)?;
        until_all("40 serf agents to see each other again", LIMIT, &mut views, all)?;
    }
    let what = "40 members: one killed to noticed by all";
    bench.report.add(Measurement::spread((what, "serf"), "s", &missed, 95));

    std::thread::sleep(SETTLE);
    let hosts: Vec<_> = serf.agents.iter().map(|agent| agent.host.clone()).collect();
    traffic(bench, &lab, "serf", &hosts)?;
    false_alarms(bench, &lab, "serf", &mut views)
}

/// Measures the bytes per second that one member sends at rest.
fn traffic(bench: &mut Bench, lab: &Lab, subject: &str, hosts: &[Host]) -> Result<()> {
    let span = Duration::from_secs(bench.amount(15, 3).into());
    let traffic_meter = TrafficMeter::begin(lab, hosts.iter().collect())?;
    std::thread::sleep(span);
    let mut sent = Samples::default();
    for rate in traffic_meter.end()? {
        sent.push(rate);
    }
    let what = "40 members: sent by one at rest, counted at the bridge";
    bench.report.add(Measurement::spread((what, subject), "bytes/s", &sent, 95));
    Ok(())
}

fn false_alarms(
    bench: &mut Bench,
    lab: &Lab,
    subject: &str,
    views: &mut [MemberView],
) -> Result<()> {
    let span = Duration::from_secs(bench.amount(45, 5).into());
    say(&format!("members: losing {LOSS} % of all frames for {span:?}"));
    let count = |views: &mut [MemberView]| -> Result<usize> {
        views.iter_mut().try_for_each(MemberView::update)?;
        Ok(views.iter().map(|one| one.losses).sum())
    };
    let before = count(views)?;
    lab.lose(LOSS)?;
    std::thread::sleep(span);
    lab.heal()?;
    let losses = u32::try_from(count(views)? - before)?;
    let what = format!("40 members: false alarms in {} s with {LOSS} % loss", span.as_secs());
    let measurement = Measurement::one((what, subject), "alarms", losses.into(), MEMBERS);
    let measurement =
        measurement.note("sum over all members: how often one reported another as gone");
    bench.report.add(if subject == "musterd" {
        measurement.at_most(0.0, "none")
    } else {
        measurement
    });
    Ok(())
}

fn stop_all(cluster: &mut Cluster) -> Result<()> {
    cluster.names().iter().try_for_each(|name| cluster.kill(name))
}

/// Returns a node's full id, from the beginning of its log.
fn id_of(cluster: &Cluster, name: &str) -> Result<String> {
    let log = std::fs::read_to_string(cluster.node(name).host.dir().join("musterd.log"))?;
    let (_, rest) = log.split_once(" id=").context("a log begins with the node's id")?;
    Ok(rest.split_whitespace().next().context("an id")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sights_of_musterd_are_read() {
        let line =
            |what: &str| format!("2026-01-02T03:04:05.6Z  INFO member {what} peer=0a1b2c3d4e");
        assert_eq!(read(&line("alive")), Some(MemberEvent::Seen("0a1b2c3d4e".to_owned())));
        assert_eq!(read(&line("down")), Some(MemberEvent::Gone("0a1b2c3d4e".to_owned())));
        assert_eq!(read("2026 INFO Raft peer is reachable again peer=0a1b2c3d4e"), None);
    }
}
