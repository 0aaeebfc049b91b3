//! Removal: the permanent end of a membership. [`decide_removal`] is the one decision: may this node
//! go, in what order, or why not.
//!
//! It checks, in this order: the author's role; the node is or was a member; another control-plane
//! node remains; etcd keeps a quorum (unless forced); Raft's remaining voters have one.
//!
//! It performs nothing: the node that an operator asked (daemon/src/api/operator/nodes.rs) and Raft's
//! leader (daemon/src/raft/membership.rs) perform their steps of the plan, and
//! [`ClusterState::apply`] the last one.

use muster_messages::OperatorMethod;
use std::collections::BTreeSet;

use muster_types::etcd::EtcdMemberId;
use muster_types::{NodeId, NodeName};

use super::command::Remove;
use super::quorum::Voters;
use super::{ApplyContext, ClusterState, Member, Outcome, Refusal, RefusalKind};

/// Facts for a removal that are not in the replicated state, as one node knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemovalContext {
    /// Raft's voters; those of both sets while a change is half done.
    pub raft_voters: BTreeSet<NodeId>,
    /// Raft's leader, if known.
    pub leader: Option<NodeId>,
    /// Nodes that gossip reports as down. A node that is suspected or unknown counts as up.
    pub down: BTreeSet<NodeId>,
}

/// The steps of an allowed removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalPlan {
    pub node: NodeId,
    pub name: NodeName,
    /// In this order. [`RemovalStep::Commit`] is the last one.
    pub steps: Vec<RemovalStep>,
}

/// One step of a removal. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalStep {
    /// Remove the node's member from etcd while it still answers: with two members left, etcd needs
    /// its vote for that. The member of a node that is down is removed later, by the etcd plan.
    RemoveEtcdMember { member_id: EtcdMemberId },
    /// Elect another leader. If a leader removes its own vote and dies before the others have the
    /// change, a two-voter group can elect no leader.
    HandOverLeadership,
    /// Remove the node from Raft's voters. After the last step no member talks to it any more, so
    /// it must come before; otherwise the group could stay without a leader (two voters become one,
    /// and this change needs both votes).
    RemoveRaftVoter,
    /// Commit the removal to the registry: the node becomes a tombstone.
    Commit,
}

/// Decides if a node may be removed now, and in what order. Removing a removed node again is
/// allowed. Only the check of etcd can be forced: etcd can be restored from a snapshot, while Raft
/// could not even commit the change.
pub fn decide_removal(
    state: &ClusterState,
    context: &RemovalContext,
    remove: &Remove,
) -> Result<RemovalPlan, Refusal> {
    let name = state.check_removal(remove)?;
    check_raft_voters(state, context, &remove.node)?;
    let node = remove.node;
    let plan = state.etcd().node(&node).filter(|_| !context.down.contains(&node));
    let etcd = plan.and_then(|plan| plan.phase.member_id());
    let votes = context.raft_voters.contains(&node);
    let leads = votes && context.leader == Some(node);
    let steps = [
        etcd.map(|member_id| RemovalStep::RemoveEtcdMember { member_id }),
        leads.then_some(RemovalStep::HandOverLeadership),
        votes.then_some(RemovalStep::RemoveRaftVoter),
        Some(RemovalStep::Commit),
    ];
    Ok(RemovalPlan { node, name, steps: steps.into_iter().flatten().collect() })
}

/// Refuses a removal after which no majority of Raft's voters would answer: they could not commit
/// it.
fn check_raft_voters(
    state: &ClusterState,
    context: &RemovalContext,
    node: &NodeId,
) -> Result<(), Refusal> {
    let voters = context.raft_voters.iter().map(|voter| (*voter, !context.down.contains(voter)));
    let voters: Voters<NodeId> = voters.collect();
    if voters.clone().can_spare(node) {
        return Ok(());
    }
    let (name, rest) = (state.name_or_id(node), voters.without(node));
    let refusal = |message: String| Err(Refusal::new(RefusalKind::QuorumAtRisk, message));
    if rest.is_empty() {
        return refusal(format!(
            "{name} is the only voter of Raft; wait until `musterctl members` shows another one, \
             then try again"
        ));
    }
    let down: Vec<_> = rest.silent().map(|voter| state.name_or_id(voter)).collect();
    refusal(format!(
        "without {name}, Raft would have {} voters, of which only {} answer: no majority; start {} \
         again, or remove it first with `musterctl node remove`",
        rest.len(),
        rest.answering(),
        down.join(", ")
    ))
}

impl ClusterState {
    /// Returns the node that a removal names: a member, or by its id a removed node.
    pub fn find_for_removal(&self, text: &str) -> Result<NodeId, Refusal> {
        let removed = text.parse().ok().filter(|id| self.is_removed(id));
        removed.map_or_else(|| self.find(text).map(|member| member.id), Ok)
    }

    pub(super) fn remove(&mut self, at: ApplyContext, remove: &Remove) -> Result<Outcome, Refusal> {
        let (node, name) = (remove.node, self.check_removal(remove)?);
        if self.members.get(&node).is_some() {
            self.etcd.remove_node(&node);
            self.members.remove(&node, at);
        }
        Ok(Outcome::Removed { node, name })
    }

    /// The part of the decision that every replica can check. Returns the node's name.
    fn check_removal(&self, remove: &Remove) -> Result<NodeName, Refusal> {
        self.authorize_actor(&remove.by, OperatorMethod::RemoveNode)?;
        if let Some(tombstone) = self.members.tombstone(&remove.node) {
            return Ok(tombstone.name.clone());
        }
        let Some(member) = self.members.get(&remove.node) else {
            return Err(Refusal::new(
                RefusalKind::NotAMember,
                format!(
                    "no member has the node id {}; see `musterctl members`",
                    remove.node.short()
                ),
            ));
        };
        if member.is_control_plane() {
            self.check_control_plane_remains(member, remove.force)?;
        }
        Ok(member.name.clone())
    }

    fn check_control_plane_remains(&self, member: &Member, force: bool) -> Result<(), Refusal> {
        if self.members().filter(|m| m.is_control_plane()).count() < 2 {
            return Err(Refusal::new(
                RefusalKind::LastControlPlane,
                format!(
                    "{} is the last control-plane node and the cluster needs one; join another \
                     one first",
                    member.name
                ),
            ));
        }
        if !force && !self.etcd.voters().can_spare(&member.id) {
            return Err(Refusal::new(
                RefusalKind::QuorumAtRisk,
                format!(
                    "without {} the remaining etcd members would have no quorum; wait until \
                     `musterctl etcd members` shows the others as voters, or use --force",
                    member.name
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
