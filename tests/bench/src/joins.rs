//! Joins per second: real exchanges over QUIC (handshake, token proof, admission by the Raft group,
//! certificate). The clients are workers without a daemon.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use muster_messages::hello::{Candidate, JoinRequest, candidate, join_reply};
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_transport::endpoint::{Bind, Endpoint, Trust};
use muster_types::DEFAULT_PORT;
use tokio::sync::watch;
use tokio::time::timeout;

use super::measurement::{Measurement, Samples};
use super::usage::{Memory, pid_of};
use super::{Bench, say};
use muster_tests::lab::inside;
use muster_tests::lab::{Host, Lab};
use muster_tests::{Cluster, Plan};

/// Number of client hosts, and of concurrent joins on each: fewer than a node's limit per source.
const HOSTS: usize = 4;
const AT_ONCE: u32 = 8;

/// Timeout of one join.
const LIMIT: Duration = Duration::from_secs(10);

/// Data of all clients.
struct Joining {
    token: Token,
    nodes: Vec<Ipv4Addr>,
    next: AtomicU32,
    end: Instant,
    most: u32,
}

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let lab = Lab::new()?;
    let mut cluster = Cluster::plan(&lab, &Plan::of(3))?;
    let hosts =
        (1..=HOSTS).map(|n| lab.host(&format!("joiners-{n}"))).collect::<Result<Vec<_>>>()?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    let token = cluster.document()?["machine"]["token"].as_str().context("a token")?.parse()?;
    let span = Duration::from_secs(bench.amount(20, 3).into());
    say(&format!("joins: for {span:?}"));
    let start = Instant::now();
    let nodes = cluster.nodes.values().map(|node| node.host.address()).collect();
    let joining = Joining { token, nodes, next: AtomicU32::new(0), end: start + span, most: 2000 };
    let each = all_hosts(&hosts, &joining)?;
    let took = start.elapsed();
    let subject = "musterd, 3 control-plane nodes";
    let rate = |count: usize, span: Duration| {
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / span.as_secs_f64()
    };
    let sum = Measurement::one(
        (format!("joins, {} at a time", HOSTS * AT_ONCE as usize), subject),
        "1/s",
        rate(each.len(), took),
        each.len(),
    );
    bench.report.add(sum.note("simulated members: the whole exchange, no daemon behind it"));
    bench.report.add(Measurement::spread(("one join among them", subject), "ms", &each, 99));
    let mut memory = Samples::default();
    for node in cluster.nodes.values() {
        memory.push(Memory::of(pid_of(&node.host, "musterd")?)?.resident);
    }
    let what = format!("resident memory after {} joins", each.len());
    bench.report.add(Measurement::spread((what, subject), "MiB", &memory, 95));
    Ok(())
}

fn all_hosts(hosts: &[Host], joining: &Joining) -> Result<Samples> {
    let mut each = Samples::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| inside(host, || clients(host, joining))))
            .collect();
        for thread in threads {
            let took = thread.join().unwrap_or_else(|_| bail!("a joining client panicked"))?;
            for took in took {
                each.push_millis(took);
            }
        }
        Ok(each)
    })
}

/// Joins members until the end, several at a time.
async fn clients(host: &Host, joining: &Joining) -> Result<Vec<Duration>> {
    let one_after_the_other = || async {
        let mut took = Vec::new();
        while Instant::now() < joining.end {
            let number = joining.next.fetch_add(1, Ordering::Relaxed);
            if number >= joining.most {
                break;
            }
            let start = Instant::now();
            let joined = timeout(LIMIT, join(host, joining, number)).await;
            joined.with_context(|| format!("join number {number} took more than {LIMIT:?}"))??;
            took.push(start.elapsed());
        }
        anyhow::Ok(took)
    };
    let all = try_join_all((0..AT_ONCE).map(|_| one_after_the_other())).await?;
    Ok(all.into_iter().flatten().collect())
}

async fn join(host: &Host, joining: &Joining, number: u32) -> Result<()> {
    let identity = Arc::new(Identity::generate());
    let trust = watch::Sender::new(Arc::new(Trust::default()));
    let address = SocketAddr::new(host.address().into(), 0);
    let bind = Bind { address, identity, trust: trust.subscribe() };
    let (endpoint, _listener) = Endpoint::bind(bind)?;
    let node = joining.nodes[number as usize % joining.nodes.len()];
    let session = endpoint.dial_hello(SocketAddr::new(node.into(), DEFAULT_PORT)).await?;
    session.prove(&joining.token).await?;
    let me = Candidate {
        name: format!("joiner-{number}"),
        role: muster_messages::hello::NodeRole::Worker.into(),
        addresses: vec![endpoint.local_address()?.to_string()],
        version: muster_types::VERSION.to_owned(),
        state: candidate::State::Fresh.into(),
        ..Candidate::default()
    };
    let reply = session.client().join(JoinRequest { candidate: Some(me) }).await?.into_inner();
    match reply.outcome {
        Some(join_reply::Outcome::Admitted(_)) => Ok(()),
        Some(join_reply::Outcome::Refused(why)) => bail!("not admitted: {}", why.message),
        Some(join_reply::Outcome::Redirect(_)) | None => bail!("not admitted: asked elsewhere"),
    }
}
