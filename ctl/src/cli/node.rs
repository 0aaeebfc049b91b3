//! `node`: commands on one member.

use clap::{Args, Subcommand};
use muster_messages::operator::{RemoveNodeReply, RemoveNodeRequest};
use serde::Serialize;

use super::failure::Failure;
use super::parse;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render};

/// Act on one member
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    Remove(Remove),
}

/// Remove a member: closes its sessions, removes it from Raft and etcd, never admits it again
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or node id of the member
    #[arg(value_name = "NAME", value_parser = parse::node)]
    name: String,
    /// Remove it even if etcd is left without a live majority; a removal that leaves Raft without
    /// one is always refused
    #[arg(long)]
    force: bool,
}

impl NodeCommand {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let Self::Remove(Remove { name, force }) = self;
        // Removal by id is idempotent, so it may be repeated when the reply is lost.
        let members = api.list_members().await?.members;
        let node = members.into_iter().find(|member| member.name == name).map_or(name, |m| m.id);
        let message = RemoveNodeRequest { node, force };
        let RemoveNodeReply { name, id } = api
            .call(CallKind::Idempotent, "remove the node", message, async |client, request| {
                client.remove_node(request).await
            })
            .await?;
        Ok(out.show(&Removed { removed: RemovedNode { name, id } })?)
    }
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: RemovedNode,
}

#[derive(Debug, Serialize)]
struct RemovedNode {
    name: String,
    id: String,
}

impl Render for Removed {
    fn prose(&self) -> String {
        let RemovedNode { name, id } = &self.removed;
        format!("Removed {name} ({id}). The name is free; the machine must be wiped to join again.")
    }
}
