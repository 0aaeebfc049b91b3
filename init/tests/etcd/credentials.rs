use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster_init::units::etcd::client::{CallErrorKind, Deadlines, MemberClient, Tls};
use rustix::process::{Signal, kill_process};

use crate::support::{Authority, TestCluster, end_all, start_all, until};

/// Lifetime of the first certificates: long enough to start a cluster on a busy machine.
const SHORT: Duration = Duration::from_secs(12);

#[tokio::test]
async fn renewed_certificates_are_taken_up_without_a_restart() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(3).await?;
    let issued = Instant::now();
    for node in &mut nodes {
        node.spec.credentials = cluster.authority.expiring(node.spec.client.ip(), SHORT)?;
    }
    start_all(&nodes).await?;
    let pids = [nodes[0].pid()?, nodes[1].pid()?, nodes[2].pid()?];
    // Two are renewed, the third is left to expire.
    for node in &mut nodes[..2] {
        node.spec.credentials = cluster.authority.credentials(node.spec.client.ip())?;
        node.start().await?;
    }
    until("the first certificates to expire", async || {
        ensure!(issued.elapsed() > SHORT + Duration::from_secs(1), "not yet");
        Ok(())
    })
    .await?;
    // New connections in both roles: clients to renewed members, and renewed members to each other.
    for node in &nodes[..2] {
        until("a renewed member to serve", async || Ok(node.member()?.health().await?)).await?;
    }
    let client = cluster.client(&nodes[2..])?;
    let expired = client.get(b"a").await.err().context("the third's has expired")?;
    assert_eq!(expired.kind, CallErrorKind::Unreachable, "{expired}");
    assert!(expired.to_string().to_lowercase().contains("expired"), "{expired}");
    kill_process(pids[2], Signal::KILL)?;
    // Only the renewed members are left: still a majority, over new connections.
    cluster.client(&nodes[..2])?.put(b"a", b"1").await?;
    assert_eq!([nodes[0].pid()?, nodes[1].pid()?], [pids[0], pids[1]]);
    for node in &nodes[..2] {
        assert_eq!(node.handle.status().borrow().unit.restarts, 0);
    }
    // The third is renewed late and is an ordinary member again.
    nodes[2].spec.credentials = cluster.authority.credentials(nodes[2].spec.client.ip())?;
    nodes[2].start().await?;
    nodes[2]
        .until("it to serve again", |s| s.unit.restarts > 0 && s.unit.health.is_healthy())
        .await?;
    end_all(nodes).await
}

#[tokio::test]
async fn a_stranger_is_refused_by_etcd_and_etcd_by_a_stranger() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let stranger = Authority::new();
    let own = stranger.client("root")?;
    let trusting = Tls::new(&cluster.authority.authorities(), &own)?;
    let refused =
        MemberClient::new(nodes[0].spec.client, &trusting, Deadlines::default()).health().await;
    let refused = refused.err().context("no entry")?;
    assert_eq!(refused.kind, CallErrorKind::Unreachable, "{refused}");
    assert!(refused.to_string().contains("alert"), "{refused}");
    let good = cluster.authority.client("root")?;
    let distrusting = Tls::new(&stranger.authorities(), &good)?;
    let member = MemberClient::new(nodes[0].spec.client, &distrusting, Deadlines::default());
    let refused = member.health().await.err().context("no trust")?;
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    end_all(nodes).await
}
