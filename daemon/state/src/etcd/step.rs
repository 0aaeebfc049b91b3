//! The decision on the next change of etcd's membership ([`next_step`]): record, update, remove,
//! promote or add. One at a time, and never at the cost of the quorum.
//!
//! A learner is promoted when it is healthy, has started, and the voters have a quorum with it. etcd
//! itself refuses while the learner lags. daemon/src/controllers/etcd/membership.rs performs the
//! step.

use std::collections::BTreeSet;

use muster_types::etcd::{EtcdGeneration, EtcdMemberId, EtcdPeer};
use muster_types::{NodeId, NodeName};

use super::{EtcdChange, EtcdMemberPhase, EtcdPlan, NodePlan};
use crate::ClusterState;
use crate::quorum::Voters;

/// The observed state of etcd, read **after** the replicated state, from a member that has
/// just answered a read that needs a quorum: etcd 3.4 answers a plain list from memory, however
/// old. With an older list, a healthy member could be taken for removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdObservation {
    /// etcd's own list.
    pub members: Vec<ObservedMember>,
    /// Nodes that gossip has considered down for a while.
    pub down: BTreeSet<NodeId>,
}

/// One entry of etcd's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedMember {
    pub member_id: EtcdMemberId,
    /// Empty until the member has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub learner: bool,
    /// True if its client endpoint answered the last probe.
    pub healthy: bool,
}

/// One step. The caller observes etcd again before the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Propose this change: etcd has made it already and the plan does not have it.
    Record(EtcdChange),
    /// `member update`, then [`EtcdChange::PeerUrlChanged`].
    Update { node: NodeId, generation: EtcdGeneration, member_id: EtcdMemberId, peer_url: String },
    /// `member remove`. `of`: then [`EtcdChange::Removed`] for that node and generation.
    Remove { member_id: EtcdMemberId, of: Option<(NodeId, EtcdGeneration)> },
    /// `member promote`, then [`EtcdChange::Promoted`]. etcd refuses while the learner lags: retry.
    Promote { node: NodeId, generation: EtcdGeneration, member_id: EtcdMemberId },
    /// `member add` as learner, then [`EtcdChange::Added`].
    Add { node: NodeId, generation: EtcdGeneration, peer: EtcdPeer },
}

/// Returns the next step from the plan and the observed state of etcd. `None` once they agree, if
/// nothing can be done safely, or if the observed list is empty.
pub fn next_step(state: &ClusterState, observed: &EtcdObservation) -> Option<Step> {
    if observed.members.is_empty() {
        return None;
    }
    let planner = Planner { state, plan: state.etcd(), observed };
    planner
        .record_change()
        .or_else(|| planner.update())
        .or_else(|| planner.remove())
        .or_else(|| planner.promote())
        .or_else(|| planner.add())
}

struct Planner<'a> {
    state: &'a ClusterState,
    plan: &'a EtcdPlan,
    observed: &'a EtcdObservation,
}

impl Planner<'_> {
    /// Records a change that etcd has made and the plan does not have yet.
    fn record_change(&self) -> Option<Step> {
        let nodes =
            self.plan.nodes().find_map(|(node, node_plan)| self.unrecorded_change(node, node_plan));
        let removal = || {
            self.plan.leftover_members().find_map(|(node, removal)| {
                let seen = match removal.member_id {
                    Some(member_id) => self.member(member_id),
                    None => self.unassigned(&removal.peer.name),
                };
                let (node, generation) = (*node, removal.generation);
                seen.is_none().then_some(EtcdChange::Removed { node, generation })
            })
        };
        nodes.or_else(removal).map(Step::Record)
    }

    fn unrecorded_change(&self, node: &NodeId, node_plan: &NodePlan) -> Option<EtcdChange> {
        let (node, generation) = (*node, node_plan.generation);
        let removed = EtcdChange::Removed { node, generation };
        match node_plan.phase {
            EtcdMemberPhase::Founding => Some(match self.unassigned(&node_plan.peer.name) {
                Some(seen) => EtcdChange::Started { node, generation, member_id: seen.member_id },
                None => removed,
            }),
            EtcdMemberPhase::Waiting => {
                // If the node had a member before, an unknown one may be it, started and lost.
                if self.plan.learner().is_some() || generation > EtcdGeneration::FIRST {
                    return None;
                }
                let peer_url = self.state.etcd_peer_url(&node)?;
                let unstarted = |m: &&ObservedMember| m.learner && m.name.is_empty();
                let mut unknown_members = self.unknown_members().filter(unstarted);
                let seen = unknown_members.find(|m| m.peer_urls.contains(&peer_url))?;
                Some(EtcdChange::Added { node, generation, member_id: seen.member_id, peer_url })
            }
            EtcdMemberPhase::Learner { member_id } => match self.member(member_id) {
                None => Some(removed),
                Some(seen) if !seen.learner => {
                    Some(EtcdChange::Promoted { node, generation, member_id })
                }
                Some(seen) => peer_url_change(&node, node_plan, seen),
            },
            EtcdMemberPhase::Voter { member_id } => match self.member(member_id) {
                None => Some(removed),
                Some(seen) => peer_url_change(&node, node_plan, seen),
            },
            EtcdMemberPhase::Lost { member_id: Some(member_id) } => {
                self.member(member_id).is_none().then_some(removed)
            }
            EtcdMemberPhase::Lost { member_id: None } => {
                self.unassigned(&node_plan.peer.name).is_none().then_some(removed)
            }
        }
    }

    /// Updates a member whose node has another address now.
    fn update(&self) -> Option<Step> {
        self.plan.nodes().find_map(|(node, node_plan)| {
            let (EtcdMemberPhase::Learner { member_id } | EtcdMemberPhase::Voter { member_id }) =
                node_plan.phase
            else {
                return None;
            };
            let peer_url = self.state.etcd_peer_url(node)?;
            let taken = self.observed.members.iter().any(|m| m.peer_urls.contains(&peer_url));
            let (node, generation) = (*node, node_plan.generation);
            (node_plan.peer.url != peer_url && !taken).then_some(Step::Update {
                node,
                generation,
                member_id,
                peer_url,
            })
        })
    }

    /// Removes a member that should not exist, if the quorum holds without it.
    fn remove(&self) -> Option<Step> {
        let removal = self.plan.leftover_members().filter_map(|(node, removal)| {
            let member_id = match removal.member_id {
                Some(member_id) => member_id,
                None => self.unassigned(&removal.peer.name)?.member_id,
            };
            Some((member_id, Some((*node, removal.generation))))
        });
        let lost = self.plan.nodes().filter_map(|(node, node_plan)| {
            let EtcdMemberPhase::Lost { member_id } = node_plan.phase else { return None };
            let seen = || self.unassigned(&node_plan.peer.name).map(|m| m.member_id);
            Some((member_id.or_else(seen)?, Some((*node, node_plan.generation))))
        });
        let unknown_members = self.unknown_members().map(|m| (m.member_id, None));
        removal
            .chain(lost)
            .chain(unknown_members)
            .chain(self.stalled_learner())
            .find(|(member_id, _)| self.is_removable(*member_id))
            .map(|(member_id, of)| Step::Remove { member_id, of })
    }

    /// A learner whose node is down while another node waits; it goes back to the end of the queue.
    fn stalled_learner(&self) -> Option<(EtcdMemberId, Option<(NodeId, EtcdGeneration)>)> {
        let node = self.plan.learner()?;
        let node_plan = self.plan.node(node)?;
        let stalled = self.observed.down.contains(node) && self.next_waiting().is_some();
        stalled.then_some((node_plan.phase.member_id()?, Some((*node, node_plan.generation))))
    }

    fn promote(&self) -> Option<Step> {
        let node = *self.plan.learner()?;
        let node_plan = self.plan.node(&node)?;
        let member_id = node_plan.phase.member_id()?;
        let seen = self.member(member_id)?;
        let generation = node_plan.generation;
        let safe = self.voters().with(member_id).has_quorum();
        (seen.healthy && !seen.name.is_empty() && safe).then_some(Step::Promote {
            node,
            generation,
            member_id,
        })
    }

    fn add(&self) -> Option<Step> {
        if self.plan.learner().is_some() || self.observed.members.iter().any(|m| m.learner) {
            return None;
        }
        let (node, node_plan) = self.next_waiting()?;
        let peer_url = self.state.etcd_peer_url(node)?;
        if self.observed.members.iter().any(|m| m.peer_urls.contains(&peer_url)) {
            return None;
        }
        let peer = EtcdPeer { name: node_plan.peer.name.clone(), url: peer_url };
        Some(Step::Add { node: *node, generation: node_plan.generation, peer })
    }

    /// The node that has waited longest, of those that are not down.
    fn next_waiting(&self) -> Option<(&NodeId, &NodePlan)> {
        self.plan
            .nodes()
            .filter(|(node, r)| {
                r.phase == EtcdMemberPhase::Waiting && !self.observed.down.contains(node)
            })
            .min_by_key(|(_, r)| r.since_index)
    }

    fn member(&self, member_id: EtcdMemberId) -> Option<&ObservedMember> {
        self.observed.members.iter().find(|m| m.member_id == member_id)
    }

    /// A voter of this name that the plan has assigned to no node yet.
    fn unassigned(&self, name: &NodeName) -> Option<&ObservedMember> {
        self.observed
            .members
            .iter()
            .find(|m| !m.learner && m.name == name.as_str() && !self.is_assigned(m.member_id))
    }

    /// Members that are not in the plan. A learner that never started was added by a leader that
    /// died before recording it. Any other was wrongly recorded as removed: its node has stopped it
    /// and waits to be added again, which the old member's name and peer URL prevent.
    fn unknown_members(&self) -> impl Iterator<Item = &ObservedMember> {
        let unknown =
            |m: &&ObservedMember| !self.is_assigned(m.member_id) && !self.is_known_by_name(m);
        self.observed.members.iter().filter(unknown)
    }

    /// Returns whether this is a voter that the plan knows by its name only.
    fn is_known_by_name(&self, member: &ObservedMember) -> bool {
        let named = |peer: &EtcdPeer| peer.name.as_str() == member.name;
        let by_name = |phase: EtcdMemberPhase| {
            matches!(phase, EtcdMemberPhase::Founding | EtcdMemberPhase::Lost { member_id: None })
        };
        !member.learner
            && (self.plan.nodes().any(|(_, r)| by_name(r.phase) && named(&r.peer))
                || self
                    .plan
                    .leftover_members()
                    .any(|(_, d)| d.member_id.is_none() && named(&d.peer)))
    }

    fn is_assigned(&self, member_id: EtcdMemberId) -> bool {
        self.plan.nodes().any(|(_, r)| r.phase.member_id() == Some(member_id))
            || self.plan.leftover_members().any(|(_, d)| d.member_id == Some(member_id))
    }

    /// The voters by etcd's list. One that is about to be removed counts as silent.
    fn voters(&self) -> Voters<EtcdMemberId> {
        let voters = self.observed.members.iter().filter(|m| !m.learner);
        voters.map(|m| (m.member_id, m.healthy && !self.is_leaving(m))).collect()
    }

    fn is_leaving(&self, member: &ObservedMember) -> bool {
        if self.unknown_members().any(|unknown| unknown.member_id == member.member_id) {
            return true;
        }
        let lost = self.plan.nodes().any(|(_, r)| match r.phase {
            EtcdMemberPhase::Lost { member_id: Some(member_id) } => member_id == member.member_id,
            EtcdMemberPhase::Lost { member_id: None } => r.peer.name.as_str() == member.name,
            _ => false,
        });
        lost || self.plan.leftover_members().any(|(_, d)| match d.member_id {
            Some(member_id) => member_id == member.member_id,
            None => d.peer.name.as_str() == member.name && !self.is_assigned(member.member_id),
        })
    }

    /// Returns whether etcd has this member and can spare it.
    fn is_removable(&self, member_id: EtcdMemberId) -> bool {
        self.member(member_id).is_some() && self.voters().can_spare(&member_id)
    }
}

/// Returns the change if etcd has another peer URL than the plan: an update was not recorded.
fn peer_url_change(
    node: &NodeId,
    node_plan: &NodePlan,
    seen: &ObservedMember,
) -> Option<EtcdChange> {
    let peer_url = seen.peer_urls.first()?;
    let (node, generation) = (*node, node_plan.generation);
    (*peer_url != node_plan.peer.url).then(|| EtcdChange::PeerUrlChanged {
        node,
        generation,
        peer_url: peer_url.clone(),
    })
}
