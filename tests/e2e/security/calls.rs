//! The commands of `musterctl` that call the cluster, with the call that decides whether a role may
//! run them.

use anyhow::{Result, ensure};
use muster_messages::OperatorMethod;

/// A command that calls the cluster.
pub(super) struct Row {
    /// The call that the fewest roles may make.
    pub(super) call: OperatorMethod,
    /// Its arguments. `OUT` is a directory for its files, `TOKEN` the id of a token.
    pub(super) line: &'static str,
    /// Exit code if the role suffices, in a cluster of one. Codes other than 0 are a permitted call
    /// that finds nothing to do: there is no node `cp-9`, and a cluster of one has no other member for
    /// etcd's leadership.
    pub(super) alone: i32,
    /// Exit codes of an admin in a cluster of several.
    pub(super) in_cluster: &'static [i32],
}

const fn row(
    call: OperatorMethod,
    line: &'static str,
    alone: i32,
    in_cluster: &'static [i32],
) -> Row {
    Row { call, line, alone, in_cluster }
}

pub(super) const CREATE_TOKEN: &str = "token create --role worker";

/// Every command that calls the cluster. A call without a row fails the tests.
pub(super) const CALLS: &[Row] = &[
    row(OperatorMethod::Version, "version", 0, &[0]),
    row(OperatorMethod::Members, "members", 0, &[0]),
    row(OperatorMethod::Status, "status", 0, &[0]),
    row(OperatorMethod::NodeStatus, "status -n cp-1", 0, &[0]),
    row(OperatorMethod::Health, "health", 0, &[0]),
    row(OperatorMethod::RemoveNode, "node remove cp-9 --yes", 1, &[1]),
    row(OperatorMethod::PlanRemoval, "node remove cp-9 --dry-run", 1, &[1]),
    row(OperatorMethod::CreateToken, CREATE_TOKEN, 0, &[0]),
    row(OperatorMethod::ListTokens, "token list", 0, &[0]),
    // In a cluster of several the token may have been revoked before.
    row(OperatorMethod::RevokeToken, "token revoke TOKEN", 0, &[0, 1]),
    row(OperatorMethod::ShowPki, "pki show", 0, &[0]),
    row(OperatorMethod::ListAudit, "audit", 0, &[0]),
    row(OperatorMethod::EtcdMembers, "etcd members", 0, &[0]),
    row(OperatorMethod::EtcdStatus, "etcd status", 0, &[0]),
    row(OperatorMethod::EtcdSnapshot, "etcd snapshot OUT/snapshot", 0, &[0]),
    row(OperatorMethod::EtcdAlarms, "etcd alarms", 0, &[0]),
    row(OperatorMethod::EtcdDisarm, "etcd alarms --disarm", 0, &[0]),
    row(OperatorMethod::EtcdDefrag, "etcd defrag", 0, &[0]),
    row(OperatorMethod::EtcdForfeitLeadership, "etcd forfeit-leadership", 1, &[0]),
    row(OperatorMethod::EtcdClientConfig, "etcd client-config --out OUT/client", 0, &[0]),
];

/// Fails when the operator API has a call without a row.
pub(super) fn every_call_has_a_row() -> Result<()> {
    for call in OperatorMethod::ALL {
        let has_row = CALLS.iter().any(|row| row.call == *call);
        ensure!(has_row, "the call {} has no row in CALLS", call.as_str());
    }
    Ok(())
}
