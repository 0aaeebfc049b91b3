//! `audit`: the audit log.

use clap::Args;
use muster_messages::operator::{AuditEntry, ListAuditReply, ListAuditRequest};
use serde::Serialize;

use super::failure::Failure;
use super::parse;
use crate::client::{Api, CallKind};
use crate::clock::rfc3339;
use crate::output::{Output, Render, or_dash, table};

/// Show who changed or tried what, oldest first
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Number of entries, the newest ones; 0 for all that are kept
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit,
        allow_negative_numbers = true)]
    limit: u32,
}

fn limit(text: &str) -> Result<u32, String> {
    parse::number(text, 0..=u32::MAX, 100)
}

impl Audit {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let message = ListAuditRequest { limit: self.limit };
        let ListAuditReply { entries } = api
            .call(CallKind::Idempotent, "show the audit log", message, async |client, request| {
                client.list_audit(request).await
            })
            .await?;
        Ok(out.show(&AuditView { entries: entries.into_iter().map(EntryView::from).collect() })?)
    }
}

#[derive(Debug, Serialize)]
struct AuditView {
    entries: Vec<EntryView>,
}

#[derive(Debug, Serialize)]
struct EntryView {
    index: u64,
    time: Option<String>,
    actor: String,
    action: String,
    subject: String,
    outcome: String,
}

impl From<AuditEntry> for EntryView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { index, time_ms, actor, action, subject, outcome } = entry;
        Self { index, time: rfc3339(time_ms), actor, action, subject, outcome }
    }
}

impl Render for AuditView {
    fn text(&self) -> String {
        let rows = self.entries.iter().map(|entry| {
            [
                or_dash(entry.time.clone().unwrap_or_default()),
                or_dash(&entry.actor),
                or_dash(&entry.action),
                or_dash(&entry.subject),
                or_dash(&entry.outcome),
            ]
        });
        table(["TIME", "ACTOR", "ACTION", "SUBJECT", "OUTCOME"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn the_audit_log_is_shown_in_every_form() {
        let entry = AuditEntry {
            index: 12,
            time_ms: 1_700_000_000_000,
            actor: "alice".to_owned(),
            action: "revoke token".to_owned(),
            subject: "abcdefgh".to_owned(),
            outcome: "ok".to_owned(),
        };
        insta::assert_snapshot!(all_formats(&AuditView { entries: vec![entry.into()] }));
    }
}
