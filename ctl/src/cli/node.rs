//! `node`: commands on one member.

use clap::{Args, Subcommand};
use muster_messages::hello::NodeRole;
use muster_messages::operator::member::State;
use muster_messages::operator::{
    PlanRemovalReply, PlanRemovalRequest, RemoveNodeReply, RemoveNodeRequest,
};
use serde::Serialize;

use super::confirm::confirm;
use super::failure::Failure;
use super::failure_tolerance::ToleranceChange;
use super::parse;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, table};

/// Act on one member
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    Remove(Remove),
}

/// Remove a member: closes its sessions, removes it from Raft and etcd, never admits it again
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    musterctl node remove worker-2              a machine that is gone for good\n  \
    musterctl node remove cp-3 --dry-run        what its removal would leave\n  \
    musterctl node remove cp-3 --yes            a healthy member, in a script")]
pub(crate) struct Remove {
    /// Name or node id of the member
    #[arg(value_name = "NAME", value_parser = parse::node)]
    name: String,
    /// Remove it even if etcd is left without a live majority; a removal that leaves Raft without
    /// one is always refused
    #[arg(long)]
    force: bool,
    /// Show what the removal would leave, or why it would be refused; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove a healthy member without a question
    #[arg(long)]
    yes: bool,
}

impl NodeCommand {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let Self::Remove(remove) = self;
        remove.run(api, out).await
    }
}

impl Remove {
    async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let Self { name, force, dry_run, yes } = self;
        let (what, message) = ("remove the node", PlanRemovalRequest { node: name, force });
        let reply = api
            .call(CallKind::Idempotent, what, message, async |client, request| {
                client.plan_removal(request).await
            })
            .await?;
        let plan = Plan::from(reply);
        if dry_run {
            return Ok(out.show(&plan)?);
        }
        if plan.is_alive() {
            confirm(yes, &format!("{} is a healthy member", plan.name), &plan.question())?;
        }
        // Removal by id is idempotent, so it may be repeated when the reply is lost.
        let message = RemoveNodeRequest { node: plan.id, force };
        let RemoveNodeReply { name, id } = api
            .call(CallKind::Idempotent, what, message, async |client, request| {
                client.remove_node(request).await
            })
            .await?;
        let failure_tolerance = plan.failure_tolerance;
        Ok(out.show(&Removed { removed: RemovedNode { name, id }, failure_tolerance })?)
    }
}

/// A removal that the cluster would allow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    name: String,
    id: String,
    role: String,
    state: String,
    failure_tolerance: ToleranceChange,
}

impl From<PlanRemovalReply> for Plan {
    fn from(reply: PlanRemovalReply) -> Self {
        let PlanRemovalReply { name, id, role, state, before, after } = reply;
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let failure_tolerance = ToleranceChange { before: before.into(), after: after.into() };
        Self {
            name,
            id,
            role: NodeRole::word_of(role),
            state: State::word_of(state),
            failure_tolerance,
        }
    }
}

impl Plan {
    fn is_alive(&self) -> bool {
        self.state == State::word_of(State::Alive.into())
    }

    fn question(&self) -> String {
        let Self { name, role, state, .. } = self;
        let left = self.failure_tolerance.describe().map(|text| format!("{text}\n"));
        format!("{}Remove {name} ({role}, {state}) permanently?", left.unwrap_or_default())
    }
}

impl Render for Plan {
    fn text(&self) -> String {
        let Self { name, role, state, failure_tolerance, .. } = self;
        let [control_planes, tolerance] = failure_tolerance.cells();
        let row = [name.clone(), role.clone(), state.clone(), control_planes, tolerance];
        table(["NAME", "ROLE", "STATE", "CONTROL PLANES", "FAILURE TOLERANCE"], [row])
    }

    fn prose(&self) -> String {
        let warning = self.failure_tolerance.after.warning.iter().map(|why| format!("{why}. "));
        format!("{}Nothing was changed.", warning.collect::<String>())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    removed: RemovedNode,
    failure_tolerance: ToleranceChange,
}

#[derive(Debug, Serialize)]
struct RemovedNode {
    name: String,
    id: String,
}

impl Render for Removed {
    fn prose(&self) -> String {
        let RemovedNode { name, id } = &self.removed;
        let left = self.failure_tolerance.describe().map(|text| format!("\n{text}"));
        format!(
            "Removed {name} ({id}). The name is free; the machine must be wiped to join again.{}",
            left.unwrap_or_default()
        )
    }
}
