use anyhow::{Context, Result, ensure};
use muster_init::units::etcd::client::{AlarmKind, CallError, CallErrorKind};
use muster_types::etcd::{EtcdMemberId, InitialClusterState};

use crate::support::{Node, TestCluster, end_all, start_all, until};

/// Adds a node as a learner; does not start it.
async fn join(cluster: &mut TestCluster, nodes: &[Node], number: u8) -> Result<Node> {
    let mut node = cluster.node(number).await?;
    let client = cluster.client(nodes)?;
    client.add_learner(&format!("https://{}", node.spec.peer)).await?;
    node.spec.initial.state = InitialClusterState::Existing;
    node.spec.initial.members = nodes.iter().map(Node::peer).collect();
    node.spec.initial.members.push(node.peer());
    Ok(node)
}

#[tokio::test]
async fn a_learner_enters_is_promoted_and_every_refusal_has_its_kind() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes)?;
    let founder = nodes[0].member()?.status().await?.id;

    let second = join(&mut cluster, &nodes, 2).await?;
    let url = format!("https://{}", second.spec.peer);
    let listed = client.members().await?;
    let learner = listed.iter().find(|member| member.learner).context("a learner")?.clone();
    assert_eq!((learner.name.as_str(), &learner.peer_urls), ("", &vec![url.clone()]));

    let kind = |result: Result<_, CallError>| match result {
        Ok(()) => None,
        Err(error) => Some(error.kind),
    };
    assert_eq!(kind(client.add_learner(&url).await.map(drop)), Some(CallErrorKind::MemberExists));
    let other = client.add_learner("https://127.88.0.1:1").await.map(drop);
    assert_eq!(kind(other), Some(CallErrorKind::TooManyLearners));
    assert_eq!(
        kind(client.promote(learner.id).await.map(drop)),
        Some(CallErrorKind::LearnerNotReady)
    );
    assert_eq!(kind(client.promote(founder).await.map(drop)), Some(CallErrorKind::NotLearner));
    let unknown = EtcdMemberId(1);
    assert_eq!(kind(client.remove(unknown).await.map(drop)), Some(CallErrorKind::MemberNotFound));

    second.start().await?;
    let status = second.until_healthy().await?;
    assert!(status.is_learner, "{status:?}");
    assert_eq!(
        kind(second.member()?.get(b"a").await.map(drop)),
        Some(CallErrorKind::NotSupportedByLearner)
    );
    until("the promotion", async || Ok(client.promote(learner.id).await?)).await?;
    second
        .until("a voter that serves", |status| {
            status.unit.health.is_healthy() && !status.is_learner
        })
        .await?;

    nodes.push(second);
    let client = cluster.client(&nodes)?;
    client.move_leader(learner.id).await?;
    let moved = until("a new leader", async || {
        let leader = nodes[0].member()?.status().await?.leader;
        ensure!(leader == Some(learner.id), "{leader:?}");
        Ok(())
    });
    moved.await?;
    client.move_leader(learner.id).await?;
    let refused = nodes[0].member()?.move_leader(founder).await;
    assert_eq!(kind(refused), Some(CallErrorKind::NotLeader));
    nodes[0].member()?.defragment().await?;
    let hashes = [nodes[0].member()?.hash().await?, nodes[1].member()?.hash().await?];
    assert_eq!(hashes[0], hashes[1]);
    end_all(nodes).await
}

/// etcd 3.4 lists its members from memory: a partitioned member keeps returning an old list.
#[tokio::test]
async fn a_member_without_a_quorum_tells_no_current_list() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(2).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes)?;
    let mut listed = client.current_members().await?;
    let mut remembered = client.members().await?;
    listed.sort_by_key(|member| member.id);
    remembered.sort_by_key(|member| member.id);
    assert_eq!((listed.len(), &listed), (2, &remembered));
    nodes.pop().context("two")?.end().await?;
    let alone = nodes[0].member()?;
    until("the other to be missed", async || {
        ensure!(alone.status().await?.leader.is_none(), "a leader");
        Ok(())
    })
    .await?;
    assert_eq!(alone.members().await?.len(), 2, "it remembers");
    let kind = alone.current_members().await.map_err(|error| error.kind);
    assert!(matches!(kind, Err(CallErrorKind::NoLeader | CallErrorKind::Deadline)), "{kind:?}");
    end_all(nodes).await
}

#[tokio::test]
async fn a_member_that_moves_stays_the_same_member() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes[1..])?;
    let id = nodes[0].member()?.status().await?.id;
    let elsewhere = cluster.node(9).await?;
    let node = &mut nodes[0];
    client.update(id, &format!("https://{}", elsewhere.spec.peer)).await?;
    (node.spec.peer, node.spec.client) = (elsewhere.spec.peer, elsewhere.spec.client);
    node.spec.credentials = elsewhere.spec.credentials.clone();
    elsewhere.end().await?;
    node.start().await?;
    node.until("it to serve there", |s| s.unit.restarts == 1 && s.unit.health.is_healthy()).await?;
    assert_eq!(node.member()?.status().await?.id, id);
    until("its client URL to follow", async || {
        let members = client.members().await?;
        let urls = &members.iter().find(|m| m.id == id).context("listed")?.client_urls;
        ensure!(*urls == [format!("https://{}", nodes[0].spec.client)], "{urls:?}");
        Ok(())
    })
    .await?;
    end_all(nodes).await
}

#[tokio::test]
async fn changed_first_settings_restart_nothing_once_it_has_started() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let mut nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let pid = nodes[0].pid()?;
    let other = cluster.node(2).await?;
    let node = &mut nodes[0];
    until("its data to be on record", async || {
        let text = std::fs::read_to_string(node.dir.root().join("g1.started"))?;
        ensure!(text.contains("\"hadData\": true"), "{text}");
        Ok(())
    })
    .await?;
    node.spec.initial.members.push(other.peer());
    node.spec.initial.state = InitialClusterState::Existing;
    node.spec.known_to_cluster = true;
    node.start().await?;
    node.until_healthy().await?;
    assert_eq!(node.pid()?, pid);
    other.end().await?;
    end_all(nodes).await
}

#[tokio::test]
async fn a_used_up_quota_is_an_alarm_that_can_be_mended() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    cluster.tuning.quota = 1 << 20;
    let nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let member = nodes[0].member()?;
    let value = vec![0; 256 << 10];
    let mut last = None;
    // etcd checks its size on commit, a few times per second: a fast disk takes many writes first.
    for number in 0..400_u16 {
        if let Err(error) = member.put(&number.to_be_bytes(), &value).await {
            last = Some(error);
            break;
        }
    }
    assert_eq!(last.context("the quota to be used up")?.kind, CallErrorKind::NoSpace);
    let alarms = member.alarms().await?;
    assert_eq!(alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::NoSpace]);
    member.disarm(alarms[0]).await?;
    assert_eq!(member.alarms().await?, []);
    end_all(nodes).await
}
