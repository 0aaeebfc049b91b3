//! `etcd defrag`.

use clap::Args;
use muster_messages::operator::{
    EtcdDefragReply, EtcdDefragRequest, EtcdStatusReply, EtcdStatusRequest,
};
use serde::Serialize;

use super::error::EtcdError;
use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, format_size};

/// Description of the failure when a call before the defragmentation fails.
const NOT_STARTED: &str = "defragment etcd's database, and nothing was done";

/// Release the unused space of one member's database (--node, else the node that answers); the
/// member does not answer meanwhile
#[derive(Debug, Args)]
pub(crate) struct Defrag {}

impl Defrag {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let node = api.fix_target_node(NOT_STARTED).await?;
        check_etcd_answers(api, &node).await?;
        let what = "defragment etcd's database";
        let EtcdDefragReply { size_before, size_after } = api
            .call(CallKind::NonIdempotent, what, EtcdDefragRequest {}, async |client, request| {
                client.etcd_defrag(request).await
            })
            .await?;
        Ok(out.show(&Defragmented { node, size_before, size_after })?)
    }
}

/// Rejects a node whose etcd does not answer. If the call were sent anyway, its failure would not
/// show whether the defragmentation began.
async fn check_etcd_answers(api: &mut Api, node: &str) -> Result<(), Failure> {
    let EtcdStatusReply { members } = api
        .call(CallKind::Idempotent, NOT_STARTED, EtcdStatusRequest {}, async |client, request| {
            client.etcd_status(request).await
        })
        .await?;
    match members.into_iter().find(|member| member.node == node && !member.unreachable.is_empty()) {
        Some(member) => {
            Err(EtcdError::NoAnswer { node: member.node, why: member.unreachable }.into())
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

impl Render for Defragmented {
    fn prose(&self) -> String {
        let Self { node, size_before, size_after } = self;
        let (before, after) = (format_size(*size_before), format_size(*size_after));
        format!("Defragmented the etcd of {node}: {before} before, {after} after.")
    }
}
