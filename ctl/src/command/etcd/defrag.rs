//! `etcd defrag`.

use clap::Args;
use muster_messages::operator::{
    EtcdDefragReply, EtcdDefragRequest, EtcdStatusReply, EtcdStatusRequest,
};
use serde::Serialize;

use super::{EtcdError, size};
use crate::connect::{Api, Kind};
use crate::failure::Failure;
use crate::output::{Output, View};

/// What could not be done when a question fails that comes before it.
const NOT_BEGUN: &str = "defragment etcd's database, and nothing was done";

/// Give back the unused space of one member's database (--node, else the node that answers); it
/// answers nothing meanwhile
#[derive(Debug, Args)]
pub(crate) struct Defrag {}

impl Defrag {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let node = api.settle_node(NOT_BEGUN).await?;
        refuse_silent(api, &node).await?;
        let what = "defragment etcd's database";
        let EtcdDefragReply { size_before, size_after } = api
            .call(Kind::Once, what, EtcdDefragRequest {}, async |client, request| {
                client.etcd_defrag(request).await
            })
            .await?;
        Ok(out.show(&Defragmented { node, size_before, size_after })?)
    }
}

/// Refuses a node whose etcd does not answer. Were it asked to defragment all the same, nobody could
/// tell afterwards whether it has begun.
async fn refuse_silent(api: &mut Api, node: &str) -> Result<(), Failure> {
    let EtcdStatusReply { members } = api
        .call(Kind::Idempotent, NOT_BEGUN, EtcdStatusRequest {}, async |client, request| {
            client.etcd_status(request).await
        })
        .await?;
    match members.into_iter().find(|member| member.node == node && !member.unreachable.is_empty()) {
        Some(silent) => {
            Err(EtcdError::Silent { node: silent.node, why: silent.unreachable }.into())
        }
        None => Ok(()),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Defragmented {
    node: String,
    size_before: u64,
    size_after: u64,
}

impl View for Defragmented {
    fn text(&self) -> String {
        let Self { node, size_before, size_after } = self;
        let (before, after) = (size(*size_before), size(*size_after));
        format!("Defragmented the etcd of {node}: {before} before, {after} after.")
    }
}
