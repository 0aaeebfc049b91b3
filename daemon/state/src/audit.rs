//! The audit log: actor, action, subject and outcome of each change. Append only; the oldest
//! entries are evicted.

use std::collections::VecDeque;
use std::sync::Arc;

use muster_types::{LogIndex, UnixMillis};
use serde::{Deserialize, Serialize};

use super::command::RecordAudit;
use super::etcd::EtcdChange;
use super::{Actor, ApplyContext, ClusterState, Command, Outcome, Refusal, RefusalKind, limits};

/// One audit entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Log index of the command.
    pub index: LogIndex,
    #[serde(rename = "time_ms")]
    pub time: UnixMillis,
    /// An operator's name, "node NAME", or "cluster".
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// "ok", or the message of the refusal.
    pub outcome: String,
}

/// The newest entries, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct AuditLog(VecDeque<Arc<AuditEntry>>);

/// An audit entry whose outcome is not known yet.
pub(super) struct AuditDraft {
    actor: String,
    action: &'static str,
    subject: String,
    /// True if a refusal is recorded too.
    record_refusals: bool,
}

impl AuditLog {
    fn push(&mut self, mut entry: AuditEntry) {
        clip(&mut entry.actor, limits::MAX_AUDIT_TEXT);
        clip(&mut entry.action, limits::MAX_AUDIT_TEXT);
        clip(&mut entry.subject, limits::MAX_AUDIT_TEXT);
        clip(&mut entry.outcome, limits::MAX_AUDIT_OUTCOME);
        while self.0.len() >= limits::MAX_AUDIT_ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back(Arc::new(entry));
    }
}

/// Makes the text one line of bounded length: untrusted text must not look like two entries.
fn clip(text: &mut String, max: usize) {
    if text.chars().any(char::is_control) {
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    if text.len() > max {
        let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

impl ClusterState {
    /// The entries that are kept, oldest first.
    pub fn audit(&self) -> impl DoubleEndedIterator<Item = &AuditEntry> + ExactSizeIterator {
        self.audit.0.iter().map(Arc::as_ref)
    }

    /// Drafts the entry for this command, before the command changes the names in it.
    pub(super) fn draft_audit_entry(&self, command: &Command) -> Option<AuditDraft> {
        let node = |id| self.actor_name(&Actor::Node(id));
        let (actor, action, subject, record_refusals) = match command {
            Command::FoundCluster(found) => {
                (Actor::Cluster, "found-cluster", format!("cluster {}", found.cluster_name), true)
            }
            Command::InstallAuthorities(install) => {
                (Actor::Node(install.by), "install-authorities", "cluster".to_owned(), false)
            }
            Command::Admit(admit) => {
                let subject = format!("node {}", admit.name);
                (Actor::Node(admit.verified_by), "admit", subject, true)
            }
            Command::Remove(remove) => (remove.by, "remove-node", node(remove.node), true),
            Command::CreateToken(create) => {
                (create.by, "create-token", format!("token {}", create.token), true)
            }
            Command::RevokeToken(revoke) => {
                (revoke.by, "revoke-token", format!("token {}", revoke.token), true)
            }
            Command::Etcd(change) => {
                let action = match change {
                    EtcdChange::Started { .. } => "etcd-started",
                    EtcdChange::Added { .. } => "etcd-added",
                    EtcdChange::Promoted { .. } => "etcd-promoted",
                    EtcdChange::Removed { .. } => "etcd-removed",
                    EtcdChange::PeerUrlChanged { .. } => "etcd-peer-url-changed",
                };
                (Actor::Cluster, action, node(change.node()), false)
            }
            Command::Report(_) | Command::RecordAudit(_) | Command::Barrier => return None,
        };
        Some(AuditDraft { actor: self.actor_name(&actor), action, subject, record_refusals })
    }

    pub(super) fn push_audit_entry(
        &mut self,
        at: ApplyContext,
        draft: Option<AuditDraft>,
        outcome: &Outcome,
    ) {
        let Some(AuditDraft { actor, action, subject, record_refusals }) = draft else { return };
        let outcome = match outcome {
            Outcome::Unchanged | Outcome::Admitted { already_member: true, .. } => return,
            Outcome::Refused(_) if !record_refusals => return,
            Outcome::Refused(refusal) => refusal.message.clone(),
            Outcome::Done | Outcome::Admitted { .. } | Outcome::Removed { .. } => "ok".to_owned(),
        };
        let (index, time, action) = (at.index, at.now, action.to_owned());
        self.audit.push(AuditEntry { index, time, actor, action, subject, outcome });
    }

    pub(super) fn record_audit(
        &mut self,
        at: ApplyContext,
        record: &RecordAudit,
    ) -> Result<Outcome, Refusal> {
        self.require_control_plane(&record.by)?;
        if record.action.is_empty() {
            return Err(Refusal::new(RefusalKind::Invalid, "an audit entry names an action"));
        }
        let entry = AuditEntry {
            index: at.index,
            time: at.now,
            actor: self.actor_name(&Actor::Node(record.by)),
            action: record.action.clone(),
            subject: record.subject.clone(),
            outcome: record.outcome.clone(),
        };
        self.audit.push(entry);
        Ok(Outcome::Done)
    }
}
