//! Cluster id in a state directory, independent of what the node reports.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use muster_formation::birth::PromiseStore;
use muster_pki::identity::Identity;
use muster_types::ClusterId;
use serde_json::Value;

/// Returns the cluster ids in the birth record and in the membership: none before the node belongs
/// to a cluster, and never two.
pub fn read(state: &Path) -> Result<BTreeSet<ClusterId>> {
    let found = [born(state)?, member(state)?];
    Ok(found.into_iter().flatten().collect())
}

/// Returns the cluster id in the birth record. Without an identity there is no such record.
fn born(state: &Path) -> Result<Option<ClusterId>> {
    let path = state.join("identity.key");
    if !path.exists() {
        return Ok(None);
    }
    let id = Identity::from_pkcs8(&std::fs::read(path)?)?.node_id();
    let (_, record) = PromiseStore::open(state, id)?;
    Ok(record.cluster_id())
}

/// Returns the cluster id in the membership, if there is one yet.
fn member(state: &Path) -> Result<Option<ClusterId>> {
    let path = state.join("membership.json");
    if !path.exists() {
        return Ok(None);
    }
    let membership: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let cluster = membership["clusterId"].as_str().context("the membership names a cluster")?;
    Ok(Some(cluster.parse().with_context(|| format!("in {}: {cluster}", path.display()))?))
}
