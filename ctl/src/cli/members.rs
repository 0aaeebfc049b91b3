//! `members`: lists the cluster's members.

use clap::Args;
use muster_messages::hello::NodeRole;
use muster_messages::operator::{Member, MembersReply, member};
use serde::Serialize;

use super::failure::Failure;
use crate::client::Api;
use crate::clock::format_span;
use crate::output::{Output, Render, non_empty, or_dash, table};

/// List the members and their state
#[derive(Debug, Args)]
pub(crate) struct Members {}

impl Members {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let reply = api.list_members().await?;
        let control_planes = reply.members.iter().filter(|m| m.role() == NodeRole::ControlPlane);
        api.learn(control_planes.map(|m| m.address.clone()).collect());
        Ok(out.show(&MembersView::from(reply))?)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MembersView {
    members: Vec<MemberView>,
    leader: Option<String>,
    stale: bool,
    #[serde(skip)]
    stale_for_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    name: String,
    id: String,
    role: String,
    address: String,
    state: String,
    raft: RaftView,
    etcd: Option<String>,
    version: String,
    config_version: u64,
    last_seen_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RaftView {
    role: Option<String>,
    voter: bool,
}

impl From<MembersReply> for MembersView {
    fn from(reply: MembersReply) -> Self {
        let MembersReply { members, leader, stale, stale_for_ms, .. } = reply;
        Self {
            members: members.into_iter().map(MemberView::from).collect(),
            leader: non_empty(leader),
            stale,
            stale_for_ms,
        }
    }
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        let Member { name, id, role, address, state, version, .. } = member;
        let raft_role = non_empty(member::RaftRole::word_of(member.raft_role));
        Self {
            name,
            id,
            role: NodeRole::word_of(role),
            address,
            state: member::State::word_of(state),
            raft: RaftView { role: raft_role, voter: member.raft_voter },
            etcd: non_empty(member::EtcdMemberPhase::word_of(member.etcd)),
            version,
            config_version: member.config_version,
            last_seen_ms: member.last_seen_ms,
        }
    }
}

impl Render for MembersView {
    fn text(&self) -> String {
        let rows = self.members.iter().map(|m| {
            let raft = m.raft.role.clone().unwrap_or_default();
            [
                m.name.clone(),
                m.role.clone(),
                or_dash(&m.address),
                m.state.clone(),
                or_dash(raft),
                or_dash(m.etcd.clone().unwrap_or_default()),
                m.version.clone(),
                m.config_version.to_string(),
                match m.last_seen_ms {
                    None => "never".to_owned(),
                    Some(0..1000) => "now".to_owned(),
                    Some(past) => format!("{} ago", format_span(past)),
                },
                m.id.chars().take(10).collect(),
            ]
        });
        let heads =
            ["NAME", "ROLE", "ADDRESS", "STATE", "RAFT", "ETCD", "VERSION", "CONFIG", "SEEN", "ID"];
        table(heads, rows)
    }

    fn prose(&self) -> String {
        if !self.stale {
            return String::new();
        }
        let since = format_span(self.stale_for_ms);
        format!(
            "May be out of date: the node that answered has not heard from a leader for {since}."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn members_are_shown_in_every_form() {
        let id = "a".repeat(52);
        let member = |name: &str| Member {
            name: name.to_owned(),
            id: id.clone(),
            role: NodeRole::ControlPlane.into(),
            address: "10.0.0.1:50000".to_owned(),
            state: member::State::Alive.into(),
            raft_role: member::RaftRole::Leader.into(),
            raft_voter: true,
            etcd: member::EtcdMemberPhase::Voter.into(),
            version: "0.1.0".to_owned(),
            config_version: 1,
            last_seen_ms: Some(312),
        };
        let worker = Member {
            role: NodeRole::Worker.into(),
            raft_role: 0,
            raft_voter: false,
            etcd: 0,
            state: member::State::Down.into(),
            last_seen_ms: Some(75_000),
            ..member("worker-1")
        };
        let reply = MembersReply {
            members: vec![member("cp-1"), worker],
            leader: "cp-1".to_owned(),
            stale: false,
            stale_for_ms: 0,
            cluster_name: "demo".to_owned(),
            cluster_id: "b".repeat(52),
        };
        insta::assert_snapshot!(all_formats(&MembersView::from(reply.clone())));
        let stale =
            MembersReply { stale: true, stale_for_ms: 65_000, leader: String::new(), ..reply };
        insta::assert_snapshot!("stale", all_formats(&MembersView::from(stale)));
    }
}
