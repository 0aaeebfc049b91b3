use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use muster_init::units::UnitPhase;
use muster_init::units::etcd::EtcdStatus;
use muster_init::units::etcd::client::snapshot::{self, SnapshotDigest};
use muster_init::units::etcd::restore::{RestoreError, RestoreOutcome, restore};

use crate::support::{TestCluster, end_all, start_all};

#[tokio::test]
async fn a_snapshot_is_whole_and_restored_into_a_new_cluster() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let member = nodes[0].member()?;
    for number in 0..200_u8 {
        member.put(&[b'k', number], &[number; 2000]).await?;
    }
    let old_cluster = member.status().await?.cluster;
    let file = cluster.directory.path().join("snapshot.db");
    let saved = snapshot::save(&member, &file).await?;
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&file)?.len(), saved.size);
    assert_eq!(snapshot::verify(&file)?, saved);
    let status = cluster.etcdctl(&[], &["snapshot", "status", &file.to_string_lossy()]).await?;
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    end_all(nodes).await?;

    let mut after = TestCluster::new()?;
    let mut nodes = after.founders(3).await?;
    for node in &mut nodes {
        node.spec.initial.token = "restored".to_owned();
        let wanted = Some(saved.digest);
        let first = restore(&node.dir, &node.spec, Some(&file), wanted).await?;
        assert_eq!(first, RestoreOutcome::Done(saved));
        let again = restore(&node.dir, &node.spec, Some(&file), wanted).await?;
        assert_eq!(again, RestoreOutcome::AlreadyDone(saved.digest));
    }
    start_all(&nodes).await?;
    let gone = cluster.directory.path().join("gone.db");
    for node in &nodes {
        let member = node.member()?;
        assert_eq!(member.get(b"k\x07").await?.as_deref(), Some([7; 2000].as_slice()));
        let status = member.status().await?;
        assert_ne!(status.cluster, old_cluster);
        // Repeated at every later start, when the file may be gone.
        let running = restore(&node.dir, &node.spec, Some(&gone), None).await?;
        assert_eq!(running, RestoreOutcome::AlreadyDone(saved.digest));
    }
    let client = after.client(&nodes)?;
    assert_eq!(client.members().await?.len(), 3);
    client.put(b"new", b"1").await?;
    end_all(nodes).await
}

#[tokio::test]
async fn nothing_is_restored_over_data_or_from_a_bad_file() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(2).await?;
    let mut alone = nodes;
    for node in &mut alone {
        let name = node.spec.name.clone();
        node.spec.initial.members.retain(|member| member.name == name);
    }
    start_all(&alone[..1]).await?;
    let file = cluster.directory.path().join("snapshot.db");
    let saved = snapshot::save(&alone[0].member()?, &file).await?;
    let over = restore(&alone[0].dir, &alone[0].spec, Some(&file), None).await;
    assert!(matches!(over, Err(RestoreError::DataExists { .. })), "{over:?}");

    let node = &alone[1];
    let wanted = Some(SnapshotDigest([7; 32]));
    let other = restore(&node.dir, &node.spec, Some(&file), wanted).await;
    assert!(matches!(other, Err(RestoreError::OtherSnapshot { .. })), "{other:?}");
    let mut bytes = fs::read(&file)?;
    *bytes.get_mut(100).context("a byte")? ^= 1;
    let damaged = cluster.directory.path().join("damaged.db");
    fs::write(&damaged, &bytes)?;
    let bad = restore(&node.dir, &node.spec, Some(&damaged), None).await;
    assert!(matches!(bad, Err(RestoreError::Verify(_))), "{bad:?}");
    assert!(!node.data().exists());
    assert_eq!(snapshot::verify(&file)?, saved);
    end_all(alone).await
}

#[tokio::test]
async fn a_restore_that_was_cut_short_does_not_become_an_empty_member() -> Result<()> {
    let mut cluster = TestCluster::new()?;
    let nodes = cluster.founders(1).await?;
    start_all(&nodes).await?;
    let file = cluster.directory.path().join("snapshot.db");
    nodes[0].member()?.put(b"a", b"1").await?;
    let saved = snapshot::save(&nodes[0].member()?, &file).await?;
    end_all(nodes).await?;

    let mut after = TestCluster::new()?;
    let nodes = after.founders(1).await?;
    let node = &nodes[0];
    restore(&node.dir, &node.spec, Some(&file), None).await?;
    // As if the power had failed between the start record and the rename.
    fs::remove_dir_all(node.data())?;
    let record = node.dir.root().join("g1.started");
    let text = fs::read_to_string(&record)?.replace("\"hadData\": true", "\"hadData\": false");
    fs::write(&record, text)?;
    node.start().await?;
    let refused = |status: &EtcdStatus| status.unit.phase == UnitPhase::Refused;
    let status = node.until("a refusal", refused).await?;
    assert!(status.unit.problem.context("a reason")?.contains("restored"));
    assert_eq!(
        restore(&node.dir, &node.spec, Some(&file), None).await?,
        RestoreOutcome::Done(saved)
    );
    start_all(&nodes).await?;
    assert_eq!(nodes[0].member()?.get(b"a").await?.as_deref(), Some(b"1".as_slice()));
    end_all(nodes).await
}
