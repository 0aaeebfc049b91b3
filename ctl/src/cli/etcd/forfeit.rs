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
        let EtcdForfeitLeadershipReply { leader, moved } = api
            .call(CallKind::Idempotent, what, message, async |client, request| {
                client.etcd_forfeit_leadership(request).await
            })
            .await?;
        Ok(out.show(&Forfeited { leader, moved })?)
    }
}

#[derive(Debug, Serialize)]
struct Forfeited {
    leader: String,
    moved: bool,
}

impl Render for Forfeited {
    fn prose(&self) -> String {
        let Self { leader, moved } = self;
        if *moved {
            format!("etcd is now led by {leader}.")
        } else {
            format!("Nothing to do: etcd is led by {leader}.")
        }
    }
}
