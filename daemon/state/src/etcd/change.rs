//! The transitions of the etcd plan. Each names its node and generation. A transition that does not
//! fit the current phase is refused as stale; a repeated one changes nothing.

use muster_types::NodeId;
use muster_types::etcd::{DataState, EtcdGeneration, EtcdMemberId};
use serde::{Deserialize, Serialize};

use super::{EtcdMemberPhase, EtcdPlan, EtcdReport, LeftoverMember, NodePlan};
use crate::{ApplyContext, ClusterState, Outcome, Refusal, RefusalKind, limits};

/// One transition of the etcd plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtcdChange {
    /// A founder appeared in etcd's list of members: founding -> voter.
    Started { node: NodeId, generation: EtcdGeneration, member_id: EtcdMemberId },
    /// etcd added the node as a learner with this URL: waiting -> learner.
    Added { node: NodeId, generation: EtcdGeneration, member_id: EtcdMemberId, peer_url: String },
    /// etcd promoted the learner: learner -> voter.
    Promoted { node: NodeId, generation: EtcdGeneration, member_id: EtcdMemberId },
    /// etcd does not list the member (any more): back to waiting with the next generation. The
    /// member of a removed node is dropped from the plan.
    Removed { node: NodeId, generation: EtcdGeneration },
    /// etcd now has another peer URL for the member.
    PeerUrlChanged { node: NodeId, generation: EtcdGeneration, peer_url: String },
}

impl EtcdChange {
    /// The node that the change is about.
    pub const fn node(&self) -> NodeId {
        match self {
            Self::Started { node, .. }
            | Self::Added { node, .. }
            | Self::Promoted { node, .. }
            | Self::Removed { node, .. }
            | Self::PeerUrlChanged { node, .. } => *node,
        }
    }

    const fn generation(&self) -> EtcdGeneration {
        match self {
            Self::Started { generation, .. }
            | Self::Added { generation, .. }
            | Self::Promoted { generation, .. }
            | Self::Removed { generation, .. }
            | Self::PeerUrlChanged { generation, .. } => *generation,
        }
    }
}

impl ClusterState {
    pub(crate) fn change_etcd(
        &mut self,
        at: ApplyContext,
        change: &EtcdChange,
    ) -> Result<Outcome, Refusal> {
        self.etcd.change(at, change)
    }
}

impl EtcdPlan {
    fn change(&mut self, at: ApplyContext, change: &EtcdChange) -> Result<Outcome, Refusal> {
        let (node, generation) = (change.node(), change.generation());
        if let EtcdChange::Added { peer_url, .. } | EtcdChange::PeerUrlChanged { peer_url, .. } =
            change
            && (peer_url.is_empty() || peer_url.len() > limits::MAX_URL)
        {
            return Err(Refusal::new(
                RefusalKind::Invalid,
                format!("a peer URL has 1 to {} bytes", limits::MAX_URL),
            ));
        }
        if let EtcdChange::Added { member_id, .. } | EtcdChange::Started { member_id, .. } = change
            && self.node_of_member(*member_id).is_some_and(|holder| holder != node)
        {
            return Err(stale(change, "another node has this etcd member"));
        }
        if matches!(change, EtcdChange::Added { .. })
            && self.learner().is_some_and(|learner| *learner != node)
        {
            return Err(stale(change, "another node is the learner"));
        }
        if let Some(removal) = self.leftover_members.get(&node) {
            let gone =
                matches!(change, EtcdChange::Removed { .. }) && removal.generation == generation;
            if !gone {
                return Err(stale(change, "the node was removed"));
            }
            self.leftover_members.remove(&node);
            return Ok(Outcome::Done);
        }
        let Some(node_plan) = self.nodes.get_mut(&node) else {
            return Err(stale(change, "no control-plane member has this id"));
        };
        node_plan.change(at, change)
    }

    /// The node that has this etcd member.
    fn node_of_member(&self, member_id: EtcdMemberId) -> Option<NodeId> {
        let of_member = |r: &&NodePlan| r.phase.member_id() == Some(member_id);
        let of_removal = |d: &&LeftoverMember| d.member_id == Some(member_id);
        let member = self.nodes.iter().find(|(_, r)| of_member(r)).map(|(node, _)| *node);
        let removal =
            || self.leftover_members.iter().find(|(_, d)| of_removal(d)).map(|(node, _)| *node);
        member.or_else(removal)
    }

    /// Returns whether a node's report changes its plan.
    pub(crate) fn changes_plan(&self, node: &NodeId, report: &EtcdReport) -> bool {
        report.data == DataState::Lost
            && self.nodes.get(node).is_some_and(|node_plan| {
                node_plan.generation == report.generation
                    && !matches!(
                        node_plan.phase,
                        EtcdMemberPhase::Lost { .. } | EtcdMemberPhase::Waiting
                    )
            })
    }

    /// Applies a node's report: a member whose data is lost becomes lost. Returns whether the plan
    /// changed.
    pub(crate) fn record_report(
        &mut self,
        at: ApplyContext,
        node: &NodeId,
        report: &EtcdReport,
    ) -> bool {
        let changed = self.changes_plan(node, report);
        if changed && let Some(node_plan) = self.nodes.get_mut(node) {
            node_plan
                .set_phase(at, EtcdMemberPhase::Lost { member_id: node_plan.phase.member_id() });
        }
        changed
    }
}

impl NodePlan {
    fn set_phase(&mut self, at: ApplyContext, phase: EtcdMemberPhase) {
        self.phase = phase;
        self.since_index = at.index;
    }

    fn change(&mut self, at: ApplyContext, change: &EtcdChange) -> Result<Outcome, Refusal> {
        let generation = change.generation();
        if let EtcdChange::Removed { .. } = change
            && generation.next() == Some(self.generation)
            && matches!(self.phase, EtcdMemberPhase::Waiting)
        {
            return Ok(Outcome::Unchanged);
        }
        if generation != self.generation {
            return Err(stale(change, "its etcd has another generation"));
        }
        let next = match (change, self.phase) {
            (EtcdChange::Started { member_id, .. }, EtcdMemberPhase::Founding) => {
                EtcdMemberPhase::Voter { member_id: *member_id }
            }
            (EtcdChange::Added { member_id, peer_url, .. }, EtcdMemberPhase::Waiting) => {
                self.peer.url.clone_from(peer_url);
                EtcdMemberPhase::Learner { member_id: *member_id }
            }
            (
                EtcdChange::Promoted { member_id, .. },
                EtcdMemberPhase::Learner { member_id: held },
            ) if *member_id == held => EtcdMemberPhase::Voter { member_id: held },
            (
                EtcdChange::Removed { .. },
                EtcdMemberPhase::Founding
                | EtcdMemberPhase::Learner { .. }
                | EtcdMemberPhase::Voter { .. }
                | EtcdMemberPhase::Lost { .. },
            ) => {
                let Some(next) = self.generation.next() else {
                    return Err(stale(change, "its generations are used up"));
                };
                self.generation = next;
                EtcdMemberPhase::Waiting
            }
            (
                EtcdChange::PeerUrlChanged { peer_url, .. },
                EtcdMemberPhase::Founding
                | EtcdMemberPhase::Learner { .. }
                | EtcdMemberPhase::Voter { .. }
                | EtcdMemberPhase::Lost { .. },
            ) => {
                if self.peer.url == *peer_url {
                    return Ok(Outcome::Unchanged);
                }
                self.peer.url.clone_from(peer_url);
                return Ok(Outcome::Done);
            }
            (change, phase) if is_already_applied(change, phase) => return Ok(Outcome::Unchanged),
            (change, phase) => {
                return Err(stale(change, &format!("its phase is {}", phase.as_str())));
            }
        };
        self.set_phase(at, next);
        Ok(Outcome::Done)
    }
}

/// Returns whether the phase is the result of the change, so that the change was applied before.
fn is_already_applied(change: &EtcdChange, phase: EtcdMemberPhase) -> bool {
    match (change, phase) {
        (
            EtcdChange::Started { member_id, .. } | EtcdChange::Promoted { member_id, .. },
            EtcdMemberPhase::Voter { member_id: held },
        )
        | (EtcdChange::Added { member_id, .. }, EtcdMemberPhase::Learner { member_id: held }) => {
            *member_id == held
        }
        _ => false,
    }
}

fn stale(change: &EtcdChange, why: &str) -> Refusal {
    let what = match change {
        EtcdChange::Started { .. } => "started",
        EtcdChange::Added { .. } => "added",
        EtcdChange::Promoted { .. } => "promoted",
        EtcdChange::Removed { .. } => "removed",
        EtcdChange::PeerUrlChanged { .. } => "moved",
    };
    Refusal::new(
        RefusalKind::Stale,
        format!(
            "etcd of node {} (generation {}) cannot be recorded as {what}: {why}; reread the plan",
            change.node().short(),
            change.generation()
        ),
    )
}
