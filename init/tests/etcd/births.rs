use std::fs;

use anyhow::{Context, Result};
use muster_init::units::etcd::EtcdStatus;
use muster_init::units::{UnitHealth, UnitPhase};

use crate::support::{TestCluster, end_all, start_all};

#[tokio::test]
async fn three_founders_become_a_cluster_that_a_stock_etcdctl_accepts() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(3).await?;
    start_all(&nodes).await?;
    let client = cluster.client(&nodes)?;
    client.put(b"a", b"1").await?;
    for node in &nodes {
        assert_eq!(node.member()?.get(b"a").await?.as_deref(), Some(b"1".as_slice()));
        let status = node.member()?.status().await?;
        assert_eq!(status.version, node.spec.binary.version.to_string());
        assert!(status.leader.is_some() && !status.learner && status.errors.is_empty());
        assert!(status.db_size > 0);
    }
    let members = client.members().await?;
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| !member.learner && !member.name.is_empty()));
    let health = cluster.etcdctl(&nodes, &["endpoint", "health", "--cluster"]).await?;
    let said = String::from_utf8_lossy(&health.stderr).into_owned()
        + &String::from_utf8_lossy(&health.stdout);
    assert!(health.status.success(), "{said}");
    assert_eq!(said.matches("is healthy").count(), 3, "{said}");
    end_all(nodes).await
}

#[tokio::test]
async fn a_founder_alone_waits_and_is_not_taken_for_hung() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(3).await?;
    nodes[0].start().await?;
    let waiting = |status: &EtcdStatus| matches!(status.unit.health, UnitHealth::Waiting(_));
    let status = nodes[0].until("it to wait for the others", waiting).await?;
    assert_eq!((status.unit.phase, status.unit.restarts), (UnitPhase::Running, 0));
    start_all(&nodes).await?;
    assert_eq!(nodes[0].handle.status().borrow().unit.restarts, 0);
    end_all(nodes).await
}

#[tokio::test]
async fn what_others_can_read_holds_no_secret() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let node = &nodes[0];
    let pid = node.pid()?.as_raw_nonzero();
    let pem = node.spec.credentials.server.to_pem();
    let key = pem.split_once("PRIVATE KEY-----\n").context("a key")?.1.lines().next();
    let key = key.context("a line of it")?;
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{pid}/{file}"))?;
        let text = String::from_utf8_lossy(&text);
        assert!(!text.is_empty() && !text.contains(key), "{file}");
        assert!(!text.contains("ETCD_"), "{text}");
    }
    let log = fs::read_to_string(node.dir.log().join("etcd.log"))?;
    assert!(!log.is_empty() && !log.contains(key) && !log.contains("PRIVATE"));
    assert_only_the_owner_reads(node.dir.root())?;
    end_all(nodes).await
}

fn assert_only_the_owner_reads(directory: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = directory.metadata()?.permissions().mode();
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", directory.display());
    for entry in fs::read_dir(directory.join("tls"))? {
        let path = entry?.path();
        let mode = path.metadata()?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    Ok(())
}
