//! A machine whose address changes: it must stay the same member of the cluster and of etcd, at its
//! new address only.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_types::DEFAULT_PORT;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::wait::until;

/// A node before its address changed.
#[derive(Debug)]
pub struct AddressChange {
    name: String,
    from: Ipv4Addr,
    node_id: Value,
    etcd_id: Value,
}

impl AddressChange {
    /// Records a node of a healthy cluster, before its address changes.
    pub fn before(cluster: &Cluster, name: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            from: cluster.node(name).host.address(),
            node_id: named(&cluster.members()?, name)?["id"].clone(),
            etcd_id: named(&etcd_members(cluster)?, name)?["id"].clone(),
        })
    }

    /// Waits until the cluster and etcd have the node at this address only, and checks that it is
    /// the same member.
    pub fn assert_followed(&self, cluster: &Cluster, to: Ipv4Addr, limit: Duration) -> Result<()> {
        let Self { name, from, node_id, etcd_id } = self;
        let peer_url = |address: &Ipv4Addr| format!("https://{address}:2380");
        until(&format!("{name} at {to}, in etcd too"), limit, || {
            let read = || -> Result<_> { Ok((cluster.members()?, etcd_members(cluster)?)) };
            let (members, etcd) = read().map_err(|error| format!("{error:#}"))?;
            let node = named(&members, name).map_err(|error| format!("{error:#}"))?;
            let voter = named(&etcd, name).map_err(|error| format!("{error:#}"))?;
            let old = json!(peer_url(from));
            let has_old = |member: &Value| {
                member["peerUrls"].as_array().is_some_and(|urls| urls.contains(&old))
            };
            let has_changed = node["state"] == "alive"
                && node["address"] == format!("{to}:{DEFAULT_PORT}")
                && voter["peerUrls"] == json!([peer_url(&to)])
                && !list(&etcd).iter().any(has_old);
            if has_changed { Ok(()) } else { Err(format!("{members}; {etcd}")) }
        })?;
        let (members, etcd) = (cluster.members()?, etcd_members(cluster)?);
        let now = (&named(&members, name)?["id"], &named(&etcd, name)?["id"]);
        ensure!(now == (node_id, etcd_id), "{self:?} has become another member: {now:?}");
        Ok(())
    }
}

fn etcd_members(cluster: &Cluster) -> Result<Value> {
    cluster.ctl(&["etcd", "members", "-o", "json"])?.json()
}

fn list(members: &Value) -> &[Value] {
    members["members"].as_array().map_or(&[], Vec::as_slice)
}

/// Returns the only member with this name.
fn named<'a>(members: &'a Value, name: &str) -> Result<&'a Value> {
    let mut found = list(members).iter().filter(|member| member["name"] == name);
    let one = found.next().with_context(|| format!("no {name} in {members}"))?;
    ensure!(found.next().is_none(), "two members have the name {name}: {members}");
    Ok(one)
}
