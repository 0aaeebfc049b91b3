//! `pki`: lists authorities and certificates.

use std::time::SystemTime;

use clap::Subcommand;
use muster_messages::operator::{
    Authority, AuthorityKind, Leaf, NodeLeaves, ShowPkiReply, ShowPkiRequest,
};
use serde::Serialize;

use super::failure::Failure;
use crate::client::{Api, CallKind};
use crate::clock::{format_relative, now, rfc3339};
use crate::output::{Output, Render, non_empty, or_dash, table};

/// Inspect authorities and certificates
#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Show every authority and every node's certificates, with their expiry
    Show,
}

impl PkiCommand {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let Self::Show = self;
        let mut reply = api
            .call(
                CallKind::Idempotent,
                "show the PKI",
                ShowPkiRequest {},
                async |client, request| client.show_pki(request).await,
            )
            .await?;
        reply.nodes = api.keep_target_node(reply.nodes, |node| &node.node).await?;
        Ok(out.show(&PkiView::of(reply, now()))?)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PkiView {
    #[serde(skip)]
    now: SystemTime,
    authorities: Vec<AuthorityView>,
    nodes: Vec<NodeLeavesView>,
    service_account_key: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityView {
    name: String,
    subject: String,
    not_before: Option<String>,
    not_after: Option<String>,
    #[serde(skip)]
    not_after_ms: i64,
    fingerprint: String,
    certificate: String,
}

#[derive(Debug, Serialize)]
struct NodeLeavesView {
    node: String,
    unreachable: Option<String>,
    leaves: Vec<LeafView>,
}

/// Certificate of a node. Private keys are never sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeafView {
    name: String,
    authority: String,
    subject: String,
    alternative_names: Vec<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    renews: Option<String>,
    #[serde(skip)]
    not_after_ms: i64,
    #[serde(skip)]
    renew_at_ms: i64,
    fingerprint: String,
}

impl From<Leaf> for LeafView {
    fn from(leaf: Leaf) -> Self {
        Self {
            name: leaf.name,
            authority: AuthorityKind::word_of(leaf.authority),
            subject: leaf.subject,
            alternative_names: leaf.alternative_names,
            not_before: rfc3339(leaf.not_before_ms),
            not_after: rfc3339(leaf.not_after_ms),
            renews: rfc3339(leaf.renew_at_ms),
            not_after_ms: leaf.not_after_ms,
            renew_at_ms: leaf.renew_at_ms,
            fingerprint: leaf.fingerprint,
        }
    }
}

impl PkiView {
    fn of(reply: ShowPkiReply, now: SystemTime) -> Self {
        let ShowPkiReply { authorities, nodes, service_account_key } = reply;
        let authority = |a: Authority| AuthorityView {
            name: AuthorityKind::word_of(a.kind),
            subject: a.subject,
            not_before: rfc3339(a.not_before_ms),
            not_after: rfc3339(a.not_after_ms),
            not_after_ms: a.not_after_ms,
            fingerprint: a.fingerprint,
            certificate: a.certificate_pem,
        };
        let node = |n: NodeLeaves| NodeLeavesView {
            node: n.node,
            unreachable: non_empty(n.unreachable),
            leaves: n.leaves.into_iter().map(LeafView::from).collect(),
        };
        Self {
            now,
            authorities: authorities.into_iter().map(authority).collect(),
            nodes: nodes.into_iter().map(node).collect(),
            service_account_key: non_empty(service_account_key),
        }
    }
}

impl Render for PkiView {
    fn text(&self) -> String {
        let now = self.now;
        let short = |fingerprint: &str| fingerprint.chars().take(16).collect::<String>();
        let authorities = self.authorities.iter().map(|a| {
            [
                a.name.clone(),
                a.subject.clone(),
                format_relative(a.not_after_ms, now),
                short(&a.fingerprint),
            ]
        });
        let mut text = table(["AUTHORITY", "SUBJECT", "EXPIRES", "SHA-256"], authorities);
        let leaves = self.nodes.iter().flat_map(|node| {
            let missing = node.unreachable.iter().map(|why| {
                let none = || "-".to_owned();
                let why = format!("unreachable: {why}");
                [node.node.clone(), none(), none(), none(), none(), none(), why]
            });
            let present = node.leaves.iter().map(|leaf| {
                [
                    node.node.clone(),
                    leaf.name.clone(),
                    leaf.authority.clone(),
                    format_relative(leaf.not_after_ms, now),
                    format_relative(leaf.renew_at_ms, now),
                    short(&leaf.fingerprint),
                    or_dash(leaf.alternative_names.join(" ")),
                ]
            });
            missing.chain(present).collect::<Vec<_>>()
        });
        let heads = ["NODE", "LEAF", "AUTHORITY", "EXPIRES", "RENEWS", "SHA-256", "NAMES"];
        text.push_str("\n\n");
        text.push_str(&table(heads, leaves));
        if let Some(key) = &self.service_account_key {
            text.push_str("\n\nservice-account key  ");
            text.push_str(&short(key));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn the_pki_is_shown_in_every_form() {
        let leaf = Leaf {
            name: "node".to_owned(),
            authority: AuthorityKind::Machine.into(),
            subject: "CN=cp-1".to_owned(),
            alternative_names: vec!["cp-1".to_owned(), "10.0.0.1".to_owned()],
            not_before_ms: 1_700_000_000_000,
            not_after_ms: 1_700_086_400_000,
            renew_at_ms: 1_700_086_400_000,
            fingerprint: "ab".repeat(32),
        };
        let authority = Authority {
            kind: AuthorityKind::Machine.into(),
            subject: "CN=demo machine CA".to_owned(),
            not_before_ms: 1_700_000_000_000,
            not_after_ms: 1_700_086_400_000,
            fingerprint: "cd".repeat(32),
            certificate_pem: "-----BEGIN CERTIFICATE-----\n…\n".to_owned(),
        };
        let gone = NodeLeaves {
            node: "cp-2".to_owned(),
            leaves: Vec::new(),
            unreachable: "no answer".to_owned(),
        };
        let here =
            NodeLeaves { node: "cp-1".to_owned(), leaves: vec![leaf], unreachable: String::new() };
        let reply = ShowPkiReply {
            authorities: vec![authority],
            nodes: vec![here, gone],
            service_account_key: "ef".repeat(32),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        insta::assert_snapshot!(all_formats(&PkiView::of(reply, now)));
    }
}
