//! `etcd members`.

use clap::Args;
use muster_messages::operator::{EtcdMember, EtcdMembersReply, EtcdMembersRequest};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, or_dash, table};

/// List etcd's members, as etcd itself reports them
#[derive(Debug, Args)]
pub(crate) struct Members {}

impl Members {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let what = "list etcd's members";
        let EtcdMembersReply { members } = api
            .call(CallKind::Idempotent, what, EtcdMembersRequest {}, async |client, request| {
                client.etcd_members(request).await
            })
            .await?;
        let members = members.into_iter().map(MemberView::from).collect();
        Ok(out.show(&MembersView { members })?)
    }
}

#[derive(Debug, Serialize)]
struct MembersView {
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    id: String,
    name: String,
    learner: bool,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

impl From<EtcdMember> for MemberView {
    fn from(member: EtcdMember) -> Self {
        let EtcdMember { id, name, peer_urls, client_urls, learner } = member;
        Self { id, name, learner, peer_urls, client_urls }
    }
}

impl Render for MembersView {
    fn text(&self) -> String {
        let rows = self.members.iter().map(|member| {
            [
                or_dash(&member.name),
                member.id.clone(),
                if member.learner { "learner" } else { "voter" }.to_owned(),
                or_dash(member.peer_urls.join(" ")),
                or_dash(member.client_urls.join(" ")),
            ]
        });
        table(["NAME", "ID", "ROLE", "PEER URLS", "CLIENT URLS"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn etcd_members_are_shown_in_every_form() {
        let member = EtcdMember {
            id: "8e9e05c52164694d".to_owned(),
            name: "cp-1".to_owned(),
            peer_urls: vec!["https://10.0.0.1:2380".to_owned()],
            client_urls: vec!["https://10.0.0.1:2379".to_owned()],
            learner: false,
        };
        let new = EtcdMember { learner: true, name: String::new(), ..member.clone() };
        let members = vec![member.into(), new.into()];
        insta::assert_snapshot!(all_formats(&MembersView { members }));
    }
}
