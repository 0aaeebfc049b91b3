//! The audit log: actor, action, subject and outcome of each change. Append only; the oldest
//! entries are evicted.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::command::RecordAudit;
use super::etcd::EtcdChange;
use super::{Actor, At, ClusterState, Command, Outcome, Reason, Refusal, limits};

/// One audit entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Log index of the command.
    pub index: u64,
    /// Milliseconds since 1970.
    pub time_ms: i64,
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
pub(super) struct Log(VecDeque<Arc<Entry>>);

/// An audit entry whose outcome is not known yet.
pub(super) struct Draft {
    actor: String,
    action: &'static str,
    subject: String,
    /// True if a refusal is recorded too.
    refusals: bool,
}

impl Log {
    fn push(&mut self, mut entry: Entry) {
        clip(&mut entry.actor, limits::AUDIT_TEXT);
        clip(&mut entry.action, limits::AUDIT_TEXT);
        clip(&mut entry.subject, limits::AUDIT_TEXT);
        clip(&mut entry.outcome, limits::AUDIT_OUTCOME);
        while self.0.len() >= limits::AUDIT {
            self.0.pop_front();
        }
        self.0.push_back(Arc::new(entry));
    }
}

/// Makes the text one line of bounded length: untrusted text must not look like two entries.
fn clip(text: &mut String, most: usize) {
    if text.chars().any(char::is_control) {
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

impl ClusterState {
    /// The entries that are kept, oldest first.
    pub fn audit(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.audit.0.iter().map(Arc::as_ref)
    }

    /// Drafts the entry for this command, before the command changes the names in it.
    pub(super) fn audit_draft(&self, command: &Command) -> Option<Draft> {
        let node = |id| self.actor(&Actor::Node(id));
        let (actor, action, subject, refusals) = match command {
            Command::Found(found) => {
                (Actor::Cluster, "found", format!("cluster {}", found.cluster_name), true)
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
            Command::SetLabels(set) => (set.by, "set-labels", node(set.node), true),
            Command::Etcd(change) => {
                let action = match change {
                    EtcdChange::Started { .. } => "etcd-started",
                    EtcdChange::Added { .. } => "etcd-added",
                    EtcdChange::Promoted { .. } => "etcd-promoted",
                    EtcdChange::Lost { .. } => "etcd-lost",
                    EtcdChange::Removed { .. } => "etcd-removed",
                    EtcdChange::Moved { .. } => "etcd-moved",
                };
                (Actor::Cluster, action, node(change.node()), false)
            }
            Command::Report(_) | Command::RecordAudit(_) | Command::Barrier => return None,
        };
        Some(Draft { actor: self.actor(&actor), action, subject, refusals })
    }

    pub(super) fn audit_outcome(&mut self, at: At, draft: Option<Draft>, outcome: &Outcome) {
        let Some(Draft { actor, action, subject, refusals }) = draft else { return };
        let outcome = match outcome {
            Outcome::Unchanged | Outcome::Admitted { again: true, .. } => return,
            Outcome::Refused(_) if !refusals => return,
            Outcome::Refused(refusal) => refusal.message.clone(),
            Outcome::Done | Outcome::Admitted { .. } | Outcome::Removed { .. } => "ok".to_owned(),
        };
        let (index, time_ms, action) = (at.index, at.now_ms, action.to_owned());
        self.audit.push(Entry { index, time_ms, actor, action, subject, outcome });
    }

    pub(super) fn record_audit(
        &mut self,
        at: At,
        record: &RecordAudit,
    ) -> Result<Outcome, Refusal> {
        if record.action.is_empty() {
            return Err(Refusal::new(Reason::Invalid, "an audit entry names an action"));
        }
        let entry = Entry {
            index: at.index,
            time_ms: at.now_ms,
            actor: self.actor(&Actor::Node(record.by)),
            action: record.action.clone(),
            subject: record.subject.clone(),
            outcome: record.outcome.clone(),
        };
        self.audit.push(entry);
        Ok(Outcome::Done)
    }
}
