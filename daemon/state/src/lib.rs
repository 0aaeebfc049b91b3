//! The replicated state of the Raft group: registry of members, tokens, operators, authorities,
//! etcd plan and audit log.
//!
//! Plain data and one pure, total function, [`ClusterState::apply`]. It reads no clock, draws no
//! random number, never waits or logs, and does no I/O. The leader stamps its time on each command.

mod admit;
mod audit;
mod authorities;
pub mod codec;
pub mod command;
#[cfg(test)]
mod compat;
pub mod etcd;
mod failure_tolerance;
#[cfg(any(test, feature = "testing"))]
pub mod fixtures;
mod founding;
pub mod limits;
mod members;
mod outcome;
pub mod permissions;
#[cfg(test)]
mod properties;
mod quorum;
mod removal;
mod report;
#[cfg(test)]
mod tests;
mod tokens;
pub mod view;

use std::collections::BTreeMap;

use muster_pki::identity::node_id;
use muster_types::{ConfigVersion, LogIndex, NodeId, PublicKey, UnixMillis};
use serde::{Deserialize, Serialize};

pub use audit::AuditEntry;
pub use authorities::Authorities;
pub use command::{Actor, Command, Operator, Report, TimestampedCommand};
pub use etcd::{EtcdChange, EtcdReport};
pub use failure_tolerance::failure_tolerance;
pub use founding::Birth;
pub use members::{Member, Tombstone};
pub use outcome::{Outcome, Refusal, RefusalKind};
pub use removal::{RemovalContext, RemovalPlan, RemovalStep, decide_removal};
pub use tokens::{Token, TokenStatus};

/// The whole replicated state of a cluster; empty before the cluster is founded.
///
/// Copy-on-write: a command applied while a reader holds the state clones it, so large collections
/// (members, tokens, audit entries) are behind `Arc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterState {
    /// The log index of the last command; `None` before the first.
    applied_index: Option<LogIndex>,
    /// The latest stamp seen; never decreases.
    #[serde(rename = "now_ms")]
    now: UnixMillis,
    birth: Option<Birth>,
    authorities: Option<Authorities>,
    operators: BTreeMap<PublicKey, Operator>,
    members: members::Registry,
    tokens: tokens::Tokens,
    etcd: etcd::EtcdPlan,
    audit: audit::AuditLog,
}

/// Log index and cluster time at which a command takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ApplyContext {
    index: LogIndex,
    now: UnixMillis,
}

impl ClusterState {
    /// Applies one committed command. Total and deterministic: the same state, index and command
    /// give the same result on every node. Every error is an [`Outcome::Refused`].
    ///
    /// Ignores an index that is not above the last one: that entry was applied before.
    pub fn apply(&mut self, index: LogIndex, stamped: &TimestampedCommand) -> Outcome {
        if self.applied_index.is_some_and(|last| index <= last) {
            return Outcome::Unchanged;
        }
        self.applied_index = Some(index);
        self.now = self.now.max(stamped.now);
        let at = ApplyContext { index, now: self.now };
        let draft = self.draft_audit_entry(&stamped.command);
        let outcome = self.dispatch(at, &stamped.command).unwrap_or_else(Outcome::Refused);
        self.push_audit_entry(at, draft, &outcome);
        outcome
    }

    fn dispatch(&mut self, at: ApplyContext, command: &Command) -> Result<Outcome, Refusal> {
        if self.birth.is_none() && !matches!(command, Command::FoundCluster(_)) {
            return Err(not_founded());
        }
        match command {
            Command::FoundCluster(found) => self.found_cluster(at, found),
            Command::InstallAuthorities(install) => {
                self.install_authorities(&install.by, &install.authorities)
            }
            Command::Admit(admit) => self.admit(at, admit),
            Command::Remove(remove) => self.remove(at, remove),
            Command::Report(report) => self.report(at, report),
            Command::CreateToken(create) => self.create_token(at, create),
            Command::RevokeToken(revoke) => self.revoke_token(at, revoke),
            Command::Etcd(change) => self.change_etcd(at, change),
            Command::RecordAudit(record) => self.record_audit(at, record),
            Command::Barrier => Ok(Outcome::Unchanged),
        }
    }

    /// The log index of the last command; 0 before the first.
    pub fn index(&self) -> LogIndex {
        self.applied_index.unwrap_or_default()
    }

    /// The cluster's time as of the last command.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// The founding record; `None` before the cluster is founded.
    pub fn birth(&self) -> Option<&Birth> {
        self.birth.as_ref()
    }

    /// The version of the configuration in force.
    pub fn config_version(&self) -> ConfigVersion {
        if self.birth.is_some() { ConfigVersion::FIRST } else { ConfigVersion::NONE }
    }

    /// Every operator.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.operators.values()
    }

    /// The operator with this key.
    pub fn operator(&self, key: &PublicKey) -> Option<&Operator> {
        self.operators.get(key)
    }

    /// The control-plane member with this id; refuses any other node.
    fn require_control_plane(&self, node: &NodeId) -> Result<&Member, Refusal> {
        self.members.get(node).filter(|m| m.is_control_plane()).ok_or_else(|| {
            Refusal::new(
                RefusalKind::NotNow,
                format!(
                    "node {} is not (or no longer) a control-plane member; ask another one",
                    node.short()
                ),
            )
        })
    }
}

fn not_founded() -> Refusal {
    Refusal::new(
        RefusalKind::NotFounded,
        "there is no cluster yet; `musterctl status` shows what each node waits for",
    )
}
