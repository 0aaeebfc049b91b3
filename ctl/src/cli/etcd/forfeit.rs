//! `etcd forfeit-leadership`.

use clap::Args;
use muster_messages::operator::{EtcdForfeitLeadershipReply, EtcdForfeitLeadershipRequest};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render};

/// Move etcd's leadership away from one node, before it is taken down
#[derive(Debug, Args)]
pub(crate) struct ForfeitLeadership {}

impl ForfeitLeadership {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let (what, message) = ("move etcd's leadership", EtcdForfeitLeadershipRequest {});
        let node = api.fix_target_node(what).await?;
        let EtcdForfeitLeadershipReply { leader, moved } = api
            .call(CallKind::Idempotent, what, message, async |client, request| {
                client.etcd_forfeit_leadership(request).await
            })
            .await?;
        Ok(out.show(&Forfeited { node, leader, moved })?)
    }
}

#[derive(Debug, Serialize)]
struct Forfeited {
    /// Node that no longer leads, or did not.
    node: String,
    leader: String,
    moved: bool,
}

impl Render for Forfeited {
    fn prose(&self) -> String {
        let Self { node, leader, moved } = self;
        let leader = if leader.is_empty() { "no member" } else { leader };
        if *moved {
            format!("{node} has given up etcd's leadership; {leader} leads now.")
        } else {
            format!("Nothing to do: {node} does not lead etcd; {leader} does.")
        }
    }
}
