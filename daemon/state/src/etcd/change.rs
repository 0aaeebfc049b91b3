//! The transitions of the etcd plan. Each names its node and generation. A transition that does not
//! fit the current phase is refused as stale; a repeated one changes nothing.

use muster_types::NodeId;
use serde::{Deserialize, Serialize};

use super::{Departed, EtcdData, EtcdReport, Phase, Plan, Record};
use crate::{At, ClusterState, Outcome, Reason, Refusal, limits};

/// One transition of the etcd plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EtcdChange {
    /// A founder appeared in etcd's list of members: founding -> voter.
    Started { node: NodeId, generation: u32, member_id: u64 },
    /// etcd added the node as a learner with this URL: waiting -> learner.
    Added { node: NodeId, generation: u32, member_id: u64, peer_url: String },
    /// etcd promoted the learner: learner -> voter.
    Promoted { node: NodeId, generation: u32, member_id: u64 },
    /// The data is gone, or an operator wants it replaced: founding, learner, voter -> lost.
    Lost { node: NodeId, generation: u32 },
    /// etcd does not list the member (any more): back to waiting with the next generation. The
    /// member of a removed node is dropped from the plan.
    Removed { node: NodeId, generation: u32 },
    /// etcd now has another peer URL for the member.
    Moved { node: NodeId, generation: u32, peer_url: String },
}

impl EtcdChange {
    /// The node that the change is about.
    pub const fn node(&self) -> NodeId {
        match self {
            Self::Started { node, .. }
            | Self::Added { node, .. }
            | Self::Promoted { node, .. }
            | Self::Lost { node, .. }
            | Self::Removed { node, .. }
            | Self::Moved { node, .. } => *node,
        }
    }

    const fn generation(&self) -> u32 {
        match self {
            Self::Started { generation, .. }
            | Self::Added { generation, .. }
            | Self::Promoted { generation, .. }
            | Self::Lost { generation, .. }
            | Self::Removed { generation, .. }
            | Self::Moved { generation, .. } => *generation,
        }
    }
}

impl ClusterState {
    pub(crate) fn change_etcd(&mut self, at: At, change: &EtcdChange) -> Result<Outcome, Refusal> {
        self.etcd.change(at, change)
    }
}

impl Plan {
    fn change(&mut self, at: At, change: &EtcdChange) -> Result<Outcome, Refusal> {
        let (node, generation) = (change.node(), change.generation());
        if let EtcdChange::Added { peer_url, .. } | EtcdChange::Moved { peer_url, .. } = change
            && (peer_url.is_empty() || peer_url.len() > limits::URL)
        {
            return Err(Refusal::new(
                Reason::Invalid,
                format!("a peer URL has 1 to {} bytes", limits::URL),
            ));
        }
        if let EtcdChange::Added { member_id, .. } | EtcdChange::Started { member_id, .. } = change
            && self.holder(*member_id).is_some_and(|holder| holder != node)
        {
            return Err(stale(change, "another node has this etcd member"));
        }
        if matches!(change, EtcdChange::Added { .. })
            && self.learner().is_some_and(|learner| *learner != node)
        {
            return Err(stale(change, "another node is the learner"));
        }
        if let Some(departed) = self.departed.get(&node) {
            let gone =
                matches!(change, EtcdChange::Removed { .. }) && departed.generation == generation;
            if !gone {
                return Err(stale(change, "the node was removed"));
            }
            self.departed.remove(&node);
            return Ok(Outcome::Done);
        }
        let Some(record) = self.records.get_mut(&node) else {
            return Err(stale(change, "no control-plane member has this id"));
        };
        record.change(at, change)
    }

    /// The node that has this etcd member.
    fn holder(&self, member_id: u64) -> Option<NodeId> {
        let of_member = |r: &&Record| r.phase.member_id() == Some(member_id);
        let of_departed = |d: &&Departed| d.member_id == Some(member_id);
        let member = self.records.iter().find(|(_, r)| of_member(r)).map(|(node, _)| *node);
        let departed = || self.departed.iter().find(|(_, d)| of_departed(d)).map(|(node, _)| *node);
        member.or_else(departed)
    }

    /// Returns whether a node's report changes its plan.
    pub(crate) fn is_news(&self, node: &NodeId, report: &EtcdReport) -> bool {
        report.data == EtcdData::Lost
            && self.records.get(node).is_some_and(|record| {
                record.generation == report.generation
                    && !matches!(record.phase, Phase::Lost { .. } | Phase::Waiting)
            })
    }

    /// Applies a node's report: a member whose data is lost becomes lost. Returns whether the plan
    /// changed.
    pub(crate) fn heed(&mut self, at: At, node: &NodeId, report: &EtcdReport) -> bool {
        let news = self.is_news(node, report);
        if news && let Some(record) = self.records.get_mut(node) {
            record.enter(at, Phase::Lost { member_id: record.phase.member_id() });
        }
        news
    }
}

impl Record {
    fn enter(&mut self, at: At, phase: Phase) {
        self.phase = phase;
        self.since = at.index;
    }

    fn change(&mut self, at: At, change: &EtcdChange) -> Result<Outcome, Refusal> {
        let generation = change.generation();
        if let EtcdChange::Removed { .. } = change
            && generation.checked_add(1) == Some(self.generation)
            && matches!(self.phase, Phase::Waiting)
        {
            return Ok(Outcome::Unchanged);
        }
        if generation != self.generation {
            return Err(stale(change, "its etcd has another generation"));
        }
        let next = match (change, self.phase) {
            (EtcdChange::Started { member_id, .. }, Phase::Founding) => {
                Phase::Voter { member_id: *member_id }
            }
            (EtcdChange::Added { member_id, peer_url, .. }, Phase::Waiting) => {
                self.seat.peer_url.clone_from(peer_url);
                Phase::Learner { member_id: *member_id }
            }
            (EtcdChange::Promoted { member_id, .. }, Phase::Learner { member_id: held })
                if *member_id == held =>
            {
                Phase::Voter { member_id: held }
            }
            (
                EtcdChange::Lost { .. },
                Phase::Founding | Phase::Learner { .. } | Phase::Voter { .. },
            ) => Phase::Lost { member_id: self.phase.member_id() },
            (
                EtcdChange::Removed { .. },
                Phase::Founding | Phase::Learner { .. } | Phase::Voter { .. } | Phase::Lost { .. },
            ) => {
                let Some(next) = self.generation.checked_add(1) else {
                    return Err(stale(change, "its generations are used up"));
                };
                self.generation = next;
                Phase::Waiting
            }
            (
                EtcdChange::Moved { peer_url, .. },
                Phase::Founding | Phase::Learner { .. } | Phase::Voter { .. } | Phase::Lost { .. },
            ) => {
                if self.seat.peer_url == *peer_url {
                    return Ok(Outcome::Unchanged);
                }
                self.seat.peer_url.clone_from(peer_url);
                return Ok(Outcome::Done);
            }
            (change, phase) if is_result(change, phase) => return Ok(Outcome::Unchanged),
            (change, phase) => {
                return Err(stale(change, &format!("its phase is {}", phase.as_str())));
            }
        };
        self.enter(at, next);
        Ok(Outcome::Done)
    }
}

/// Returns whether the phase is the result of the change, so that the change was applied before.
fn is_result(change: &EtcdChange, phase: Phase) -> bool {
    match (change, phase) {
        (
            EtcdChange::Started { member_id, .. } | EtcdChange::Promoted { member_id, .. },
            Phase::Voter { member_id: held },
        )
        | (EtcdChange::Added { member_id, .. }, Phase::Learner { member_id: held }) => {
            *member_id == held
        }
        (EtcdChange::Lost { .. }, Phase::Lost { .. }) => true,
        _ => false,
    }
}

fn stale(change: &EtcdChange, why: &str) -> Refusal {
    let what = match change {
        EtcdChange::Started { .. } => "started",
        EtcdChange::Added { .. } => "added",
        EtcdChange::Promoted { .. } => "promoted",
        EtcdChange::Lost { .. } => "lost",
        EtcdChange::Removed { .. } => "removed",
        EtcdChange::Moved { .. } => "moved",
    };
    Refusal::new(
        Reason::Stale,
        format!(
            "etcd of node {} (generation {}) cannot be recorded as {what}: {why}; reread the plan",
            change.node().short(),
            change.generation()
        ),
    )
}
