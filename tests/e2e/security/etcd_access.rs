//! Access to etcd's ports with stolen certificates.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use muster_tests::ctl::{CommandOutput, output_of};
use muster_tests::{Cluster, Host, until};
use serde_json::Value;

use super::attacks::TIMEOUT;

pub(super) fn until_etcd_has(cluster: &Cluster, members: usize) -> Result<()> {
    until(&format!("etcd to have {members} voters"), TIMEOUT, || {
        let etcd = cluster.ctl(&["etcd", "members", "-o", "json"]).and_then(CommandOutput::json);
        let etcd = etcd.map_err(|error| format!("{error:#}"))?;
        let list = etcd["members"].as_array().cloned().unwrap_or_default();
        let voters = list.iter().filter(|member| member["learner"] == false).count();
        if voters == members && list.len() == members { Ok(()) } else { Err(etcd.to_string()) }
    })
}

/// Returns the ids of etcd's members by name, and of its cluster, as in etcd's headers.
pub(super) fn etcd_ids(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let listed = cluster.etcdctl(&["member", "list", "-w", "json"])?.json()?;
    let hex = |id: &Value| id.as_u64().map(|id| format!("{id:x}")).context("no id");
    let mut ids = BTreeMap::from([("cluster".to_owned(), hex(&listed["header"]["cluster_id"])?)]);
    for member in listed["members"].as_array().context("no members")? {
        let name = member["name"].as_str().context("no name")?;
        ids.insert(name.to_owned(), hex(&member["ID"])?);
    }
    Ok(ids)
}

/// Reads a key at etcd's client port, with a certificate from `stolen`.
pub(super) fn etcd_get(
    from: &Host,
    stolen: &Path,
    certificate: &str,
    address: &str,
) -> Result<CommandOutput> {
    let own = stolen.join(certificate);
    let mut command = from.command("etcdctl");
    command.args(["--dial-timeout=5s", "--command-timeout=5s", "--cacert"]);
    command.arg(stolen.join("ca.crt")).arg("--cert").arg(&own).arg("--key").arg(&own);
    command.arg(format!("--endpoints=https://{address}:2379")).args(["get", "kept"]);
    output_of(command.env("ETCDCTL_API", "3"))
}

/// Requests a path (the first of `words`) at etcd's peer port. The output includes the status.
pub(super) fn etcd_peer(
    from: &Host,
    stolen: &Path,
    address: &str,
    words: &[&str],
) -> Result<CommandOutput> {
    let (path, more) = words.split_first().context("no path")?;
    let mut command = from.command("curl");
    command.args(["-s", "-m", "10", "-i", "--http1.1", "--cacert"]).arg(stolen.join("ca.crt"));
    command.arg("--cert").arg(stolen.join("peer.pem")).arg("--key").arg(stolen.join("peer.pem"));
    output_of(command.args(more).arg(format!("https://{address}:2380{path}")))
}
