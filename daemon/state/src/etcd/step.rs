//! Decides the next change of etcd's membership: one at a time, and never at the cost of the
//! quorum.

use std::collections::BTreeSet;

use muster_types::{NodeId, NodeName};

use super::{EtcdChange, Phase, Plan, Record, Seat, majority};
use crate::ClusterState;

/// The observed state of etcd, read **after** the replicated state, from a member that has
/// just answered a read that needs a quorum: etcd 3.4 answers a plain list from memory, however
/// old. With an older list, a healthy member could be taken for removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// etcd's own list.
    pub members: Vec<ObservedMember>,
    /// Nodes that gossip has considered down for a while.
    pub down: BTreeSet<NodeId>,
}

/// One entry of etcd's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedMember {
    pub member_id: u64,
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
    /// `member update`, then [`EtcdChange::Moved`].
    Update { node: NodeId, generation: u32, member_id: u64, peer_url: String },
    /// `member remove`. `of`: then [`EtcdChange::Removed`] for that node and generation.
    Remove { member_id: u64, of: Option<(NodeId, u32)> },
    /// `member promote`, then [`EtcdChange::Promoted`]. etcd refuses while the learner lags: retry.
    Promote { node: NodeId, generation: u32, member_id: u64 },
    /// `member add` as learner, then [`EtcdChange::Added`].
    Add { node: NodeId, generation: u32, seat: Seat },
}

/// Returns the next step from the plan and the observed state of etcd. `None` once they agree, if
/// nothing can be done safely, or if the observed list is empty.
pub fn next_step(state: &ClusterState, observed: &Observed) -> Option<Step> {
    if observed.members.is_empty() {
        return None;
    }
    let look = Look { state, plan: state.etcd(), observed };
    look.record()
        .or_else(|| look.update())
        .or_else(|| look.remove())
        .or_else(|| look.promote())
        .or_else(|| look.add())
}

struct Look<'a> {
    state: &'a ClusterState,
    plan: &'a Plan,
    observed: &'a Observed,
}

impl Look<'_> {
    /// Records a change that etcd has made and the plan does not have yet.
    fn record(&self) -> Option<Step> {
        let records = self.plan.records().find_map(|(node, record)| self.news(node, record));
        let departed = || {
            self.plan.departed().find_map(|(node, departed)| {
                let seen = match departed.member_id {
                    Some(member_id) => self.member(member_id),
                    None => self.unclaimed(&departed.seat.name),
                };
                let (node, generation) = (*node, departed.generation);
                seen.is_none().then_some(EtcdChange::Removed { node, generation })
            })
        };
        records.or_else(departed).map(Step::Record)
    }

    fn news(&self, node: &NodeId, record: &Record) -> Option<EtcdChange> {
        let (node, generation) = (*node, record.generation);
        let removed = EtcdChange::Removed { node, generation };
        match record.phase {
            Phase::Founding => Some(match self.unclaimed(&record.seat.name) {
                Some(seen) => EtcdChange::Started { node, generation, member_id: seen.member_id },
                None => removed,
            }),
            Phase::Waiting => {
                // If the node had a member before, an unknown one may be it, started and lost.
                if self.plan.learner().is_some() || generation > 0 {
                    return None;
                }
                let peer_url = self.state.etcd_peer_url(&node)?;
                let unstarted = |m: &&ObservedMember| m.learner && m.name.is_empty();
                let mut strays = self.strays().filter(unstarted);
                let seen = strays.find(|m| m.peer_urls.contains(&peer_url))?;
                Some(EtcdChange::Added { node, generation, member_id: seen.member_id, peer_url })
            }
            Phase::Learner { member_id } => match self.member(member_id) {
                None => Some(removed),
                Some(seen) if !seen.learner => {
                    Some(EtcdChange::Promoted { node, generation, member_id })
                }
                Some(seen) => moved(&node, record, seen),
            },
            Phase::Voter { member_id } => match self.member(member_id) {
                None => Some(removed),
                Some(seen) => moved(&node, record, seen),
            },
            Phase::Lost { member_id: Some(member_id) } => {
                self.member(member_id).is_none().then_some(removed)
            }
            Phase::Lost { member_id: None } => {
                self.unclaimed(&record.seat.name).is_none().then_some(removed)
            }
        }
    }

    /// Updates a member whose node has another address now.
    fn update(&self) -> Option<Step> {
        self.plan.records().find_map(|(node, record)| {
            let (Phase::Learner { member_id } | Phase::Voter { member_id }) = record.phase else {
                return None;
            };
            let peer_url = self.state.etcd_peer_url(node)?;
            let taken = self.observed.members.iter().any(|m| m.peer_urls.contains(&peer_url));
            let (node, generation) = (*node, record.generation);
            (record.seat.peer_url != peer_url && !taken).then_some(Step::Update {
                node,
                generation,
                member_id,
                peer_url,
            })
        })
    }

    /// Removes a member that should not exist, if the quorum holds without it.
    fn remove(&self) -> Option<Step> {
        let departed = self.plan.departed().filter_map(|(node, departed)| {
            let member_id = match departed.member_id {
                Some(member_id) => member_id,
                None => self.unclaimed(&departed.seat.name)?.member_id,
            };
            Some((member_id, Some((*node, departed.generation))))
        });
        let lost = self.plan.records().filter_map(|(node, record)| {
            let Phase::Lost { member_id } = record.phase else { return None };
            let seen = || self.unclaimed(&record.seat.name).map(|m| m.member_id);
            Some((member_id.or_else(seen)?, Some((*node, record.generation))))
        });
        let strays = self.strays().map(|m| (m.member_id, None));
        departed
            .chain(lost)
            .chain(strays)
            .chain(self.stalled_learner())
            .find(|(member_id, _)| self.is_dispensable(*member_id))
            .map(|(member_id, of)| Step::Remove { member_id, of })
    }

    /// A learner whose node is down while another node waits; it goes back to the end of the queue.
    fn stalled_learner(&self) -> Option<(u64, Option<(NodeId, u32)>)> {
        let node = self.plan.learner()?;
        let record = self.plan.record(node)?;
        let stalled = self.observed.down.contains(node) && self.next_waiting().is_some();
        stalled.then_some((record.phase.member_id()?, Some((*node, record.generation))))
    }

    fn promote(&self) -> Option<Step> {
        let node = *self.plan.learner()?;
        let record = self.plan.record(&node)?;
        let member_id = record.phase.member_id()?;
        let seen = self.member(member_id)?;
        let healthy = 1 + self.healthy_voters().count();
        let safe = healthy >= majority(1 + self.voters().count());
        let generation = record.generation;
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
        let (node, record) = self.next_waiting()?;
        let peer_url = self.state.etcd_peer_url(node)?;
        if self.observed.members.iter().any(|m| m.peer_urls.contains(&peer_url)) {
            return None;
        }
        let seat = Seat { name: record.seat.name.clone(), peer_url };
        Some(Step::Add { node: *node, generation: record.generation, seat })
    }

    /// The node that has waited longest, of those that are not down.
    fn next_waiting(&self) -> Option<(&NodeId, &Record)> {
        self.plan
            .records()
            .filter(|(node, r)| r.phase == Phase::Waiting && !self.observed.down.contains(node))
            .min_by_key(|(_, r)| r.since)
    }

    fn member(&self, member_id: u64) -> Option<&ObservedMember> {
        self.observed.members.iter().find(|m| m.member_id == member_id)
    }

    /// A voter of this name that the plan has assigned to no node yet.
    fn unclaimed(&self, name: &NodeName) -> Option<&ObservedMember> {
        self.observed
            .members
            .iter()
            .find(|m| !m.learner && m.name == name.as_str() && !self.is_claimed(m.member_id))
    }

    /// Members that are not in the plan. A learner that never started was added by a leader that
    /// died before recording it. Any other was wrongly recorded as removed: its node has stopped it
    /// and waits to be added again, which the old member's name and peer URL prevent.
    fn strays(&self) -> impl Iterator<Item = &ObservedMember> {
        let unknown = |m: &&ObservedMember| !self.is_claimed(m.member_id) && !self.is_expected(m);
        self.observed.members.iter().filter(unknown)
    }

    /// Returns whether this is a voter that the plan knows by its name only.
    fn is_expected(&self, member: &ObservedMember) -> bool {
        let named = |seat: &Seat| seat.name.as_str() == member.name;
        let by_name =
            |phase: Phase| matches!(phase, Phase::Founding | Phase::Lost { member_id: None });
        !member.learner
            && (self.plan.records().any(|(_, r)| by_name(r.phase) && named(&r.seat))
                || self.plan.departed().any(|(_, d)| d.member_id.is_none() && named(&d.seat)))
    }

    fn is_claimed(&self, member_id: u64) -> bool {
        self.plan.records().any(|(_, r)| r.phase.member_id() == Some(member_id))
            || self.plan.departed().any(|(_, d)| d.member_id == Some(member_id))
    }

    fn voters(&self) -> impl Iterator<Item = &ObservedMember> {
        self.observed.members.iter().filter(|m| !m.learner)
    }

    /// Voters that answer and should stay.
    fn healthy_voters(&self) -> impl Iterator<Item = &ObservedMember> {
        self.voters().filter(|m| m.healthy && !self.is_leaving(m))
    }

    fn is_leaving(&self, member: &ObservedMember) -> bool {
        if self.strays().any(|stray| stray.member_id == member.member_id) {
            return true;
        }
        let lost = self.plan.records().any(|(_, r)| match r.phase {
            Phase::Lost { member_id: Some(member_id) } => member_id == member.member_id,
            Phase::Lost { member_id: None } => r.seat.name.as_str() == member.name,
            _ => false,
        });
        lost || self.plan.departed().any(|(_, d)| match d.member_id {
            Some(member_id) => member_id == member.member_id,
            None => d.seat.name.as_str() == member.name && !self.is_claimed(member.member_id),
        })
    }

    /// Returns whether the voters that stay have a quorum without this member.
    fn is_dispensable(&self, member_id: u64) -> bool {
        match self.member(member_id) {
            None => false,
            Some(member) if member.learner => true,
            Some(_) => {
                let left = self.voters().count() - 1;
                let healthy = self.healthy_voters().filter(|m| m.member_id != member_id).count();
                left > 0 && healthy >= majority(left)
            }
        }
    }
}

/// Returns the change if etcd has another peer URL than the plan: an update was not recorded.
fn moved(node: &NodeId, record: &Record, seen: &ObservedMember) -> Option<EtcdChange> {
    let peer_url = seen.peer_urls.first()?;
    let (node, generation) = (*node, record.generation);
    (*peer_url != record.seat.peer_url).then(|| EtcdChange::Moved {
        node,
        generation,
        peer_url: peer_url.clone(),
    })
}
