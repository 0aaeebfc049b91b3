use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_init::supervisor::Exit;
use muster_init::units::{UnitHealth, UnitPhase};
use muster_types::etcd::{DataState, EtcdGeneration, InitialClusterState};
use rustix::process::{Signal, kill_process};

use crate::support::{TestCluster, end_all, start_all, until};

#[tokio::test]
async fn a_killed_etcd_comes_back_with_its_data() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes)?;
    client.put(b"a", b"1").await?;
    let before = nodes[0].pid()?;
    kill_process(before, Signal::KILL)?;
    let back = nodes[0]
        .until("another process that serves", |status| {
            status.unit.restarts == 1 && status.unit.health.is_healthy()
        })
        .await?;
    assert_eq!(back.unit.last_exit, Some(Exit::Signal(9)));
    assert_ne!(nodes[0].pid()?, before);
    assert_eq!(nodes[0].member()?.get(b"a").await?.as_deref(), Some(b"1".as_slice()));
    end_all(nodes).await
}

#[tokio::test]
async fn a_hung_etcd_is_killed_after_the_limit_and_comes_back() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    cluster.policy.hang_timeout = Duration::from_secs(5);
    let nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let hung = nodes[1].pid()?;
    let since = Instant::now();
    kill_process(hung, Signal::STOP)?;
    let back = nodes[1]
        .until("another process that serves", |status| {
            status.unit.restarts == 1 && status.unit.health.is_healthy()
        })
        .await?;
    assert!(since.elapsed() >= cluster.policy.hang_timeout, "{:?}", since.elapsed());
    assert_eq!(back.unit.last_exit, Some(Exit::Signal(9)));
    end_all(nodes).await
}

#[tokio::test]
async fn members_without_a_majority_are_not_restarted() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    cluster.policy.hang_timeout = Duration::from_secs(2);
    let mut nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let last = nodes.remove(0);
    for node in nodes.drain(..) {
        node.handle.stop().await?;
        node.end().await?;
    }
    last.until("it to say that it waits", |status| {
        matches!(&status.unit.health, UnitHealth::Waiting(_))
    })
    .await?;
    let since = Instant::now();
    until("several times the limit to pass", async || {
        anyhow::ensure!(since.elapsed() > 4 * cluster.policy.hang_timeout, "not yet");
        Ok(())
    })
    .await?;
    let status = last.handle.status().borrow().clone();
    assert_eq!((status.unit.phase, status.unit.restarts), (UnitPhase::Running, 0), "{status:?}");
    last.end().await
}

#[tokio::test]
async fn a_member_whose_data_is_deleted_is_lost_and_its_node_becomes_another_member() -> Result<()>
{
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes[1..])?;
    client.put(b"a", b"1").await?;
    let old = nodes[0].member()?.status().await?.id;

    fs::remove_dir_all(nodes[0].data())?;
    let lost = nodes[0].until("the loss", |status| status.unit.phase == UnitPhase::Lost).await?;
    assert_eq!(lost.data, DataState::Lost);
    let problem = lost.unit.problem.context("a reason")?;
    assert!(problem.contains("must not start empty"), "{problem}");
    // Setting the same spec again changes nothing.
    nodes[0].start().await?;
    nodes[0].until("the loss again", |status| status.unit.phase == UnitPhase::Lost).await?;
    assert!(!nodes[0].data().exists());

    client.remove(old).await?;
    let node = &mut nodes[0];
    let url = format!("https://{}", node.spec.peer);
    // etcd requires its members to be connected for a while first.
    let adding = until("the new member's admission", async || {
        client
            .add_learner(&url)
            .await
            .inspect_err(|error| assert!(error.is_transient()))
            .map_err(Into::into)
    });
    let (new, members) = adding.await?;
    assert_eq!(members.len(), 3);
    node.spec.generation = EtcdGeneration(2);
    node.spec.initial.state = InitialClusterState::Existing;
    node.start().await?;
    node.until_healthy().await?;
    until("the new member's promotion", async || Ok(client.promote(new.id).await?)).await?;
    let node = &nodes[0];
    until("the new member to serve the data", async || {
        let value = node.member()?.get(b"a").await?;
        anyhow::ensure!(value.as_deref() == Some(b"1"), "{value:?}");
        Ok(())
    })
    .await?;
    until("what was left of the old one to go", async || {
        anyhow::ensure!(!node.dir.root().join("g1.started").exists(), "its record is there");
        Ok(())
    })
    .await?;
    end_all(nodes).await
}

#[tokio::test]
async fn all_members_stopped_at_once_come_back_by_themselves() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    cluster.client(&nodes)?.put(b"a", b"1").await?;
    for node in &nodes {
        kill_process(node.pid()?, Signal::KILL)?;
    }
    for node in &nodes {
        node.until("it to serve again", |s| s.unit.restarts > 0 && s.unit.health.is_healthy())
            .await?;
    }
    assert_eq!(cluster.client(&nodes)?.get(b"a").await?.as_deref(), Some(b"1".as_slice()));
    end_all(nodes).await
}

#[tokio::test]
async fn a_port_in_use_is_said_in_etcds_words() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(1).await?;
    let taken = std::net::TcpListener::bind(nodes[0].spec.peer)?;
    nodes[0].start().await?;
    let status = nodes[0].until("a complaint", |status| status.unit.last_error.is_some()).await?;
    let said = status.unit.last_error.unwrap_or_default();
    assert!(said.contains("address already in use"), "{said}");
    drop(taken);
    nodes[0].until_healthy().await?;
    end_all(nodes).await
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_first() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let mut leader = None;
    for (place, node) in nodes.iter().enumerate() {
        let status = node.member()?.status().await?;
        if status.leader == Some(status.id) {
            leader = Some(place);
        }
    }
    let leader = nodes.remove(leader.context("a leader")?);
    leader.handle.stop().await?;
    let ended = leader.handle.status().borrow().clone();
    assert_ne!(ended.unit.last_exit, Some(Exit::Signal(9)), "killed at the deadline: {ended:?}");
    assert_eq!((ended.unit.phase, ended.generation), (UnitPhase::Stopped, None));
    // No election was needed, so no election timeout passed.
    assert!(nodes[0].member()?.status().await?.leader.is_some());
    cluster.client(&nodes)?.put(b"a", b"1").await?;
    leader.end().await?;
    end_all(nodes).await
}
