//! Times from the last start to the birth, to a leader and to a healthy etcd on all nodes, next to
//! etcd alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::{join_all, try_join};
use tokio::time::{sleep, timeout};

use super::measurement::{Measurement, Samples};
use super::member_view::Tail;
use super::peers::etcd::{self, Etcd};
use super::{Bench, say};
use muster_tests::lab::inside;
use muster_tests::lab::{Host, Lab};
use muster_tests::{Cluster, Plan};

/// Timeout of one birth.
const LIMIT: Duration = Duration::from_mins(1);

/// Interval between two reads of the logs, and of files that do not exist yet.
const POLL: Duration = Duration::from_millis(5);

/// Times of one birth of Muster, from the last start.
struct Birth {
    born: Duration,
    led: Duration,
    healthy: Duration,
}

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    for nodes in [3, 5] {
        let times = bench.amount(10, 2);
        let (mut born, mut led) = (Samples::default(), Samples::default());
        let (mut healthy, mut alone) = (Samples::default(), Samples::default());
        for time in 1..=times {
            say(&format!("births: {nodes} nodes, {time} of {times}"));
            // Alternating, so that other load on the machine affects both.
            let birth = muster(nodes)?;
            born.push_seconds(birth.born);
            led.push_seconds(birth.led);
            healthy.push_seconds(birth.healthy);
            alone.push_seconds(etcd_alone(nodes)?);
        }
        let what = |to: &str| format!("{nodes} nodes: last start to {to}");
        let spread =
            |what, subject, samples| Measurement::spread((what, subject), "s", samples, 95);
        bench.report.add(spread(what("born"), "musterd", &born).at_most(1.0, "p50 within 1 s"));
        let note = "known by the leader's first command, which is on a majority's disks";
        bench.report.add(spread(what("a Raft leader"), "musterd", &led).note(note));
        let limit = alone.percentile(50) + 1.0;
        let measurement = spread(what("etcd healthy on all"), "musterd", &healthy);
        bench.report.add(measurement.at_most(limit, "p50 within etcd alone + 1 s"));
        let measurement = spread(what("etcd healthy on all"), "etcd alone", &alone);
        bench
            .report
            .add(measurement.note("static members, mutual TLS, its defaults, started at once"));
    }
    Ok(())
}

fn muster(nodes: u8) -> Result<Birth> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(nodes))?;
    cluster.start_all()?;
    let start = Instant::now();
    let hosts: Vec<Host> = cluster.nodes.values().map(|node| node.host.clone()).collect();
    let found = inside(&cluster.operator, || async {
        let healthy = async {
            timeout(LIMIT, join_all(hosts.iter().map(healthy)))
                .await
                .context("etcd was not healthy on all nodes in time")?
                .into_iter()
                .try_fold(start, |last, one| anyhow::Ok(last.max(one?)))
        };
        let ((born, led), healthy) = try_join(logged(&hosts, start), healthy).await?;
        Ok(Birth { born: born - start, led: led - start, healthy: healthy - start })
    });
    found.inspect_err(|_| say(&format!("logs: {}", lab.save_logs("bench-births").display())))
}

/// Returns the time at which the last node logged its birth, and the time at which the first logged
/// that its command is committed.
async fn logged(hosts: &[Host], start: Instant) -> Result<(Instant, Instant)> {
    let mut tails: Vec<_> =
        hosts.iter().map(|host| Tail::of(&host.dir().join("musterd.log"))).collect();
    let mut born = 0;
    let (mut all_born, mut led) = (None, None);
    loop {
        for tail in &mut tails {
            for line in tail.lines()? {
                born += usize::from(line.contains(" born cluster="));
                if line.contains("founding step committed") {
                    led = led.or(Some(Instant::now()));
                }
            }
        }
        if born == hosts.len() {
            all_born = all_born.or(Some(Instant::now()));
        }
        if let (Some(all_born), Some(led)) = (all_born, led) {
            return Ok((all_born, led));
        }
        if start.elapsed() > LIMIT {
            bail!("{born} of {} nodes were born after {LIMIT:?}", hosts.len());
        }
        sleep(POLL).await;
    }
}

/// Returns the time at which this node's etcd first served.
async fn healthy(host: &Host) -> Result<Instant> {
    loop {
        if let Some(tls) = etcd::tls_of(host)? {
            return Ok(etcd::until_serving(etcd::endpoint_of(host), &tls).await);
        }
        sleep(POLL).await;
    }
}

fn etcd_alone(nodes: u8) -> Result<Duration> {
    let lab = Lab::new()?;
    let operator = lab.host("operator")?;
    let mut alone = Etcd::plan(&lab, nodes)?;
    let tls = alone.tls()?;
    alone.start_all()?;
    let start = Instant::now();
    let endpoints = alone.endpoints();
    let last = inside(&operator, || async {
        let all = join_all(endpoints.values().map(|one| etcd::until_serving(*one, &tls)));
        let served = timeout(LIMIT, all).await.context("etcd alone was not healthy in time")?;
        Ok(served.into_iter().max().unwrap_or(start))
    })?;
    Ok(last - start)
}
