//! The etcd plan: the etcd member of each control-plane node, and the next membership change.
//!
//! Founders start together from one list. A later node waits, becomes a learner, then a voter. A
//! member whose data is lost is removed and starts again with the next generation. Each step is a
//! command that is checked when applied (`change`), so a repeated or late one is harmless.
//! [`next_step`] decides the next step. No code here connects to etcd.

mod change;
pub(crate) mod report;
#[cfg(test)]
mod simulation;
mod step;

use std::collections::BTreeMap;

use muster_types::etcd::{EtcdGeneration, EtcdMemberId, EtcdPeer, InitialClusterState, peer_url};
use muster_types::{LogIndex, NodeId};
use serde::{Deserialize, Serialize};

pub use change::EtcdChange;
pub use report::EtcdReport;
pub use step::{EtcdObservation, ObservedMember, Step, next_step};

use super::quorum::Voters;
use super::{ApplyContext, ClusterState, Member};

/// The progress of a node towards a voting etcd member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtcdMemberPhase {
    /// Part of the initial cluster, not seen in it yet.
    Founding,
    /// No etcd member yet.
    Waiting,
    /// Added, catching up.
    Learner {
        member_id: EtcdMemberId,
    },
    Voter {
        member_id: EtcdMemberId,
    },
    /// Its data is gone. Its member must be removed before the node can wait again. `member_id` is
    /// `None` if the member was never seen.
    Lost {
        member_id: Option<EtcdMemberId>,
    },
}

impl EtcdMemberPhase {
    /// The etcd member's id, if known.
    pub const fn member_id(self) -> Option<EtcdMemberId> {
        match self {
            Self::Founding | Self::Waiting => None,
            Self::Learner { member_id } | Self::Voter { member_id } => Some(member_id),
            Self::Lost { member_id } => member_id,
        }
    }

    /// The word for it in messages to people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Founding | Self::Waiting => "waiting",
            Self::Learner { .. } => "learner",
            Self::Voter { .. } => "voter",
            Self::Lost { .. } => "lost",
        }
    }
}

/// The plan for one control-plane node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    pub phase: EtcdMemberPhase,
    /// Increases with each replacement. Data of an earlier generation must not be
    /// used.
    pub generation: EtcdGeneration,
    /// Log index at which the phase was entered; the node that has waited longest is next.
    pub since_index: LogIndex,
    /// The name and peer URL of its member in etcd, now or once it is added.
    pub peer: EtcdPeer,
}

impl NodePlan {
    const fn new(at: ApplyContext, phase: EtcdMemberPhase, peer: EtcdPeer) -> Self {
        Self { phase, generation: EtcdGeneration::FIRST, since_index: at.index, peer }
    }
}

/// The etcd member of a removed node, until etcd has removed it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftoverMember {
    /// `None` if the node was removed before its member was seen.
    pub member_id: Option<EtcdMemberId>,
    pub generation: EtcdGeneration,
    pub peer: EtcdPeer,
    /// The member was a learner when its node was removed.
    #[serde(default)]
    pub learner: bool,
}

/// The plan for the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdPlan {
    /// The initial cluster, fixed by the birth certificate.
    founders: BTreeMap<NodeId, EtcdPeer>,
    nodes: BTreeMap<NodeId, NodePlan>,
    leftover_members: BTreeMap<NodeId, LeftoverMember>,
}

/// A node's task in the etcd plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// Run no etcd: the node is a worker.
    Nothing,
    /// Do not run etcd yet. Data of an earlier generation must be set aside.
    Wait { generation: EtcdGeneration, reason: &'static str },
    /// Start etcd and keep it running.
    Run {
        generation: EtcdGeneration,
        initial_state: InitialClusterState,
        initial_cluster: Vec<EtcdPeer>,
    },
}

impl EtcdPlan {
    /// Every control-plane node in the plan.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&NodeId, &NodePlan)> {
        self.nodes.iter()
    }

    /// The plan for this node.
    pub fn node(&self, node: &NodeId) -> Option<&NodePlan> {
        self.nodes.get(node)
    }

    /// Removed nodes whose etcd members are not removed yet.
    pub fn leftover_members(&self) -> impl ExactSizeIterator<Item = (&NodeId, &LeftoverMember)> {
        self.leftover_members.iter()
    }

    /// The initial cluster; never changes.
    pub fn founders(&self) -> Vec<EtcdPeer> {
        let mut peers: Vec<_> = self.founders.values().cloned().collect();
        peers.sort();
        peers
    }

    /// The node's task in the etcd plan.
    pub fn assignment(&self, node: &NodeId) -> Assignment {
        let Some(node_plan) = self.nodes.get(node) else { return Assignment::Nothing };
        let generation = node_plan.generation;
        let wait = |reason| Assignment::Wait { generation, reason };
        match node_plan.phase {
            EtcdMemberPhase::Waiting => wait("the leader to add it to etcd"),
            EtcdMemberPhase::Lost { .. } => wait("the leader to remove its lost etcd member"),
            EtcdMemberPhase::Founding
            | EtcdMemberPhase::Learner { .. }
            | EtcdMemberPhase::Voter { .. } => {
                let founding =
                    generation == EtcdGeneration::FIRST && self.founders.contains_key(node);
                let (initial_state, initial_cluster) = if founding {
                    (InitialClusterState::New, self.founders())
                } else {
                    (InitialClusterState::Existing, self.peers())
                };
                Assignment::Run { generation, initial_state, initial_cluster }
            }
        }
    }

    /// Every etcd member, as far as the plan knows.
    fn peers(&self) -> Vec<EtcdPeer> {
        let held = self.nodes.values().filter(|r| !matches!(r.phase, EtcdMemberPhase::Waiting));
        let mut peers: Vec<_> = held.map(|r| r.peer.clone()).collect();
        peers.extend(self.leftover_members.values().map(|d| d.peer.clone()));
        peers.sort();
        peers
    }

    /// The node that is a learner; at most one.
    pub fn learner(&self) -> Option<&NodeId> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|(_, r)| matches!(r.phase, EtcdMemberPhase::Learner { .. }))
            .map(|(node, _)| node)
    }

    /// Makes a founder a member of the initial cluster.
    pub(super) fn add_founder(&mut self, at: ApplyContext, founder: &Member) {
        let Some(peer) = peer_of(founder) else { return };
        self.founders.insert(founder.id, peer.clone());
        self.nodes.insert(founder.id, NodePlan::new(at, EtcdMemberPhase::Founding, peer));
    }

    /// Puts a new control-plane node at the end of the queue.
    pub(super) fn add_node(&mut self, at: ApplyContext, member: &Member) {
        let Some(peer) = peer_of(member) else { return };
        self.nodes.insert(member.id, NodePlan::new(at, EtcdMemberPhase::Waiting, peer));
    }

    /// Takes a removed node out of the plan and schedules the removal of its etcd member, if any. A
    /// waiting node that had a member before leaves its name, in case that member still exists.
    pub(super) fn remove_node(&mut self, node: &NodeId) {
        let Some(node_plan) = self.nodes.remove(node) else { return };
        if matches!(node_plan.phase, EtcdMemberPhase::Waiting)
            && node_plan.generation == EtcdGeneration::FIRST
        {
            return;
        }
        let removal = LeftoverMember {
            member_id: node_plan.phase.member_id(),
            generation: node_plan.generation,
            peer: node_plan.peer,
            learner: matches!(node_plan.phase, EtcdMemberPhase::Learner { .. }),
        };
        self.leftover_members.insert(*node, removal);
    }

    /// The voters by the plan. Lost members and those of removed nodes do not answer.
    pub(super) fn voters(&self) -> Voters<NodeId> {
        let planned = self.nodes.iter().filter_map(|(node, node_plan)| match node_plan.phase {
            EtcdMemberPhase::Founding | EtcdMemberPhase::Voter { .. } => Some((*node, true)),
            EtcdMemberPhase::Lost { .. } => Some((*node, false)),
            EtcdMemberPhase::Waiting | EtcdMemberPhase::Learner { .. } => None,
        });
        let removed = self.leftover_members.iter().filter(|(_, removal)| !removal.learner);
        planned.chain(removed.map(|(node, _)| (*node, false))).collect()
    }
}

fn peer_of(member: &Member) -> Option<EtcdPeer> {
    let url = peer_url(*member.addresses.first()?);
    Some(EtcdPeer { name: member.name.clone(), url })
}

impl ClusterState {
    /// The etcd plan.
    pub fn etcd(&self) -> &EtcdPlan {
        &self.etcd
    }

    /// The desired peer URL of the node in etcd, from its preferred address.
    pub fn etcd_peer_url(&self, node: &NodeId) -> Option<String> {
        self.member(node).and_then(|m| m.addresses.first()).copied().map(peer_url)
    }
}
