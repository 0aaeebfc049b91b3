//! Committed writes of 256 bytes, durable on a majority: Muster's and etcd's on the same hosts.
//!
//! Muster's write is an operator's `CreateToken`, the whole call: authorised, through the Raft log,
//! applied, audited, and read back. etcd's is a `Put`. One client calls both in turn, over one
//! connection each, so that other load on the machine affects both.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_init::units::etcd::client::Tls;
use tokio::task::JoinSet;

use super::measurement::{Measurement, Samples};
use super::peers::etcd;
use super::write_request::{WRITE_BYTES, write_request};
use super::{Bench, say};
use muster_tests::lab::Lab;
use muster_tests::lab::inside;
use muster_tests::operator::OperatorCredentials;
use muster_tests::{Cluster, Plan};

const CLIENTS: u32 = 64;

/// Addresses and credentials for the clients.
struct Targets {
    operator: OperatorCredentials,
    tls: Tls,
    muster: LeaderAndFollower,
    etcd: LeaderAndFollower,
}

/// Addresses of a leader and a follower.
#[derive(Clone, Copy)]
struct LeaderAndFollower {
    leader: Ipv4Addr,
    follower: Ipv4Addr,
}

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(3))?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    let targets = targets(&cluster)?;
    sequential(bench, &cluster, &targets)?;
    parallel(bench, &cluster, &targets)
}

fn targets(cluster: &Cluster) -> Result<Targets> {
    let operator = OperatorCredentials::of(cluster)?;
    let host = &cluster.node("cp-1").host;
    let tls = etcd::tls_of(host)?.context("a healthy node has etcd's certificates")?;
    let members = cluster.members()?;
    let muster = members["leader"].as_str().context("there is a leader")?.to_owned();
    let endpoints =
        cluster.nodes.iter().map(|(name, node)| (name.clone(), etcd::endpoint_of(&node.host)));
    let endpoints = endpoints.collect();
    let led = inside(&cluster.operator, || etcd::leader(&endpoints, &tls))?;
    let addresses_of = |leader: &str| {
        let address = |name: &str| cluster.node(name).host.address();
        let other = cluster.nodes.keys().find(|name| *name != leader);
        let follower = address(other.expect("there are three nodes"));
        LeaderAndFollower { leader: address(leader), follower }
    };
    Ok(Targets { operator, muster: addresses_of(&muster), etcd: addresses_of(&led), tls })
}

fn sequential(bench: &mut Bench, cluster: &Cluster, targets: &Targets) -> Result<()> {
    let writes = bench.amount(300, 50);
    for through in ["leader", "follower"] {
        say(&format!("writes: {writes} through the {through}"));
        let end = |addresses_of: LeaderAndFollower| {
            if through == "leader" { addresses_of.leader } else { addresses_of.follower }
        };
        let (muster, etcd) = inside(&cluster.operator, || {
            one_by_one(targets, (end(targets.muster), end(targets.etcd)), writes)
        })?;
        let what = format!("a write of {WRITE_BYTES} bytes through the {through}");
        let limit = etcd.percentile(50);
        let spread =
            |subject, samples| Measurement::spread((what.clone(), subject), "ms", samples, 99);
        let measurement = spread("musterd", &muster).at_most(limit, "p50 no slower than etcd");
        bench.report.add(measurement.note("CreateToken, the whole call"));
        bench.report.add(spread("etcd", &etcd).note("Put, on the same three hosts"));
    }
    Ok(())
}

async fn one_by_one(
    targets: &Targets,
    (muster, etcd): (Ipv4Addr, Ipv4Addr),
    writes: u32,
) -> Result<(Samples, Samples)> {
    let mut client = targets.operator.connect(muster).await?;
    let member = etcd::member((etcd, etcd::CLIENT).into(), &targets.tls);
    let value = vec![b'x'; WRITE_BYTES];
    // Warm up connections and lazy initialisation.
    client.create_token(write_request()).await?;
    member.put(b"bench", &value).await?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..writes {
        let request = write_request();
        let start = Instant::now();
        client.create_token(request).await?;
        ours.push_millis(start.elapsed());
        let start = Instant::now();
        member.put(b"bench", &value).await?;
        theirs.push_millis(start.elapsed());
    }
    Ok((ours, theirs))
}

fn parallel(bench: &mut Bench, cluster: &Cluster, targets: &Targets) -> Result<()> {
    let span = Duration::from_secs(bench.amount(8, 2).into());
    say(&format!("writes: {CLIENTS} clients for {span:?} each"));
    let (ours, our_n) = inside(&cluster.operator, || many_muster(targets, span))?;
    let (theirs, their_n) = inside(&cluster.operator, || many_etcd(targets, span))?;
    let what = format!("writes of {WRITE_BYTES} bytes from {CLIENTS} clients, through the leader");
    bench.report.add(Measurement::one((what.clone(), "musterd"), "1/s", ours, our_n));
    bench.report.add(Measurement::one((what, "etcd"), "1/s", theirs, their_n));
    Ok(())
}

async fn many_muster(targets: &Targets, span: Duration) -> Result<(f64, usize)> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(targets.operator.connect(targets.muster.leader).await?);
    }
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for mut client in clients {
        tasks.spawn(async move {
            let mut done = 0_usize;
            while start.elapsed() < span {
                client.create_token(write_request()).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    rate(start, tasks).await
}

async fn many_etcd(targets: &Targets, span: Duration) -> Result<(f64, usize)> {
    let endpoint = (targets.etcd.leader, etcd::CLIENT).into();
    let value = vec![b'x'; WRITE_BYTES];
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let member = etcd::member(endpoint, &targets.tls);
        member.health().await?;
        clients.push(member);
    }
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for (number, client) in clients.into_iter().enumerate() {
        let (key, value) = (format!("bench-{number}"), value.clone());
        tasks.spawn(async move {
            let mut done = 0_usize;
            while start.elapsed() < span {
                client.put(key.as_bytes(), &value).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    rate(start, tasks).await
}

async fn rate(start: Instant, mut tasks: JoinSet<Result<usize>>) -> Result<(f64, usize)> {
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    Ok((done as f64 / start.elapsed().as_secs_f64(), done))
}
