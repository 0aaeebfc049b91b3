//! `etcd status`.

use clap::Args;
use muster_messages::operator::{EtcdMemberStatus, EtcdStatusReply, EtcdStatusRequest};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, format_size, non_empty, or_dash, table};

/// Show the status of every etcd member
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let what = "ask etcd's members for their status";
        let EtcdStatusReply { members } = api
            .call(CallKind::Idempotent, what, EtcdStatusRequest {}, async |client, request| {
                client.etcd_status(request).await
            })
            .await?;
        let members = api.keep_target_node(members, |member| &member.node).await?;
        let members = members.into_iter().map(MemberView::from).collect();
        Ok(out.show(&StatusView { members })?)
    }
}

#[derive(Debug, Serialize)]
struct StatusView {
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    node: String,
    id: Option<String>,
    unreachable: Option<String>,
    version: Option<String>,
    leader: bool,
    learner: bool,
    db_size: u64,
    db_size_in_use: u64,
    raft_term: u64,
    raft_index: u64,
    raft_applied_index: u64,
    errors: Vec<String>,
}

impl From<EtcdMemberStatus> for MemberView {
    fn from(status: EtcdMemberStatus) -> Self {
        Self {
            node: status.node,
            id: non_empty(status.id),
            unreachable: non_empty(status.unreachable),
            version: non_empty(status.version),
            leader: status.leader,
            learner: status.learner,
            db_size: status.db_size,
            db_size_in_use: status.db_size_in_use,
            raft_term: status.raft_term,
            raft_index: status.raft_index,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
        }
    }
}

impl Render for StatusView {
    fn text(&self) -> String {
        let rows = self.members.iter().map(|member| {
            if let Some(why) = &member.unreachable {
                let none = || "-".to_owned();
                let state = format!("unreachable: {why}");
                return [member.node.clone(), none(), none(), none(), none(), none(), state];
            }
            let role = match (member.leader, member.learner) {
                (true, _) => "leader",
                (false, true) => "learner",
                (false, false) => "follower",
            };
            let size = format!(
                "{} ({} used)",
                format_size(member.db_size),
                format_size(member.db_size_in_use)
            );
            let errors = member.errors.join(", ");
            [
                member.node.clone(),
                or_dash(member.version.clone().unwrap_or_default()),
                role.to_owned(),
                size,
                member.raft_term.to_string(),
                format!("{} ({} applied)", member.raft_index, member.raft_applied_index),
                if errors.is_empty() { "none".to_owned() } else { errors },
            ]
        });
        table(["NODE", "VERSION", "ROLE", "DATABASE", "TERM", "INDEX", "ERRORS"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn etcd_status_is_shown_in_every_form() {
        let leader = EtcdMemberStatus {
            node: "cp-1".to_owned(),
            id: "8e9e05c52164694d".to_owned(),
            version: "3.4.23".to_owned(),
            db_size: 20_480,
            db_size_in_use: 16_384,
            leader: true,
            raft_term: 2,
            raft_index: 9,
            raft_applied_index: 9,
            ..EtcdMemberStatus::default()
        };
        let gone = EtcdMemberStatus {
            node: "cp-2".to_owned(),
            unreachable: "no answer".to_owned(),
            ..EtcdMemberStatus::default()
        };
        let members = vec![leader.into(), gone.into()];
        insta::assert_snapshot!(all_formats(&StatusView { members }));
    }
}
