//! Time from the kill of a leader to the next committed write through a surviving node.
//!
//! A write begins every 20 ms and the first acknowledgement counts, on Muster and on etcd. So no
//! timeout or pause of a client is part of the measurement.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use muster_init::units::etcd::client::{Deadlines, MemberClient, Tls};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::measurement::{Measurement, Samples};
use super::peers::etcd::{self, Etcd};
use super::write_request::write_request;
use super::{Bench, say};
use muster_tests::cluster::HEALTHY;
use muster_tests::lab::Lab;
use muster_tests::lab::inside;
use muster_tests::operator::OperatorCredentials;
use muster_tests::wait::until;
use muster_tests::{Cluster, Plan};

/// Timeout for a group to accept writes again.
const LIMIT: Duration = Duration::from_secs(30);

/// Interval between the starts of two writes.
const APART: Duration = Duration::from_millis(20);

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let times = bench.amount(10, 2);
    let ours = muster(times)?;
    let theirs = etcd_alone(times)?;
    let what = "3 nodes: leader killed to the next committed write";
    let spread = |subject, samples| Measurement::spread((what, subject), "s", samples, 95);
    bench.report.add(spread("musterd", &ours).at_most(1.0, "p50 below 1 s"));
    bench.report.add(spread("etcd alone", &theirs));
    Ok(())
}

fn muster(times: u32) -> Result<Samples> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(3))?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    let operator = OperatorCredentials::of(&cluster)?;
    let mut took = Samples::default();
    for time in 1..=times {
        say(&format!("failover: musterd, {time} of {times}"));
        let leader = cluster.members()?["leader"].as_str().context("a leader")?.to_owned();
        let other = cluster.names().into_iter().find(|name| *name != leader).context("another")?;
        let other = cluster.node(&other).host.address();
        let (host, mut victim) = (cluster.operator.clone(), leader.clone());
        let kill = || {
            let killed = cluster.kill(&victim);
            victim.clear();
            killed
        };
        took.push_seconds(inside(&host, || async {
            let client = operator.connect(other).await?;
            first_write(kill, || {
                let mut client = client.clone();
                Box::pin(async move { client.create_token(write_request()).await.is_ok() })
            })
            .await
        })?);
        cluster.start(&leader)?;
        cluster.until_healthy()?;
    }
    Ok(took)
}

fn etcd_alone(times: u32) -> Result<Samples> {
    let lab = Lab::new()?;
    let operator = lab.host("operator")?;
    let mut alone = Etcd::plan(&lab, 3)?;
    let tls = alone.tls()?;
    alone.start_all()?;
    let endpoints = alone.endpoints();
    let mut took = Samples::default();
    for time in 1..=times {
        say(&format!("failover: etcd alone, {time} of {times}"));
        let leader = settled_leader(&operator, &endpoints, &tls)?;
        let at = alone.nodes.iter().position(|node| *node.name.as_str() == *leader);
        let at = at.context("the leader is one of the members")?;
        let (_, other) =
            endpoints.iter().find(|(name, _)| **name != leader).context("another member")?;
        took.push_seconds(inside(&operator, || async {
            let member =
                MemberClient::new(*other, &tls, Deadlines { call: LIMIT, ..Deadlines::default() });
            member.health().await?;
            first_write(
                || alone.kill(at),
                || {
                    let member = member.clone();
                    Box::pin(async move { member.put(b"bench", &[b'x'; 256]).await.is_ok() })
                },
            )
            .await
        })?);
        alone.start(at)?;
    }
    Ok(took)
}

/// Returns the leader of a cluster in which every member serves.
fn settled_leader(
    operator: &muster_tests::lab::Host,
    endpoints: &BTreeMap<String, SocketAddr>,
    tls: &Tls,
) -> Result<String> {
    inside(operator, || async {
        for endpoint in endpoints.values() {
            timeout(HEALTHY, etcd::until_serving(*endpoint, tls)).await.context("etcd serves")?;
        }
        Ok(())
    })?;
    until("etcd to have a leader", HEALTHY, || {
        inside(operator, || etcd::leader(endpoints, tls)).map_err(|error| format!("{error:#}"))
    })
}

/// Kills the leader. Returns the time from then to the first acknowledgement of a write that began
/// afterwards.
async fn first_write(
    kill: impl FnOnce() -> Result<()>,
    mut write: impl FnMut() -> BoxFuture<'static, bool>,
) -> Result<Duration> {
    kill()?;
    let start = Instant::now();
    let mut tries = JoinSet::new();
    let mut ticks = interval(APART);
    let written = async {
        loop {
            tokio::select! {
                biased;
                Some(Ok(true)) = tries.join_next(), if !tries.is_empty() => return,
                _ = ticks.tick() => { tries.spawn(write()); }
            }
        }
    };
    timeout(LIMIT, written).await.context("no write was committed after the leader was killed")?;
    Ok(start.elapsed())
}
