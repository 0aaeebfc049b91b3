//! The etcd plan: the etcd member of each control-plane node, and the next membership change.
//!
//! Founders start together from one list. A later node waits, becomes a learner, then a voter. A
//! member whose data is lost is removed and starts again with the next generation. Each step is a
//! command that is checked when applied (`change`), so a repeated or late one is harmless.
//! [`next_step`] decides the next step. No code here connects to etcd.

mod change;
#[cfg(test)]
mod simulation;
mod step;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeId, NodeName};
use serde::{Deserialize, Serialize};

pub use change::EtcdChange;
pub use step::{Observed, ObservedMember, Step, next_step};

use super::command::Founder;
use super::{At, ClusterState, Member};

/// A control-plane node's report about its own etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdReport {
    /// The generation that the report is about; reports about an earlier one are ignored.
    pub generation: u32,
    pub data: EtcdData,
    /// The version of the etcd binary.
    #[serde(default)]
    pub version: String,
}

/// The state of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EtcdData {
    /// This generation was never started here.
    Absent,
    /// Started at least once, and still there.
    Present,
    /// Started once, and gone or corrupt.
    Lost,
}

/// The progress of a node towards a voting etcd member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Part of the initial cluster, not seen in it yet.
    Founding,
    /// No etcd member yet.
    Waiting,
    /// Added, catching up.
    Learner {
        member_id: u64,
    },
    Voter {
        member_id: u64,
    },
    /// Its data is gone. Its member must be removed before the node can wait again. `member_id` is
    /// `None` if the member was never seen.
    Lost {
        member_id: Option<u64>,
    },
}

impl Phase {
    /// The etcd member's id, if known.
    pub const fn member_id(self) -> Option<u64> {
        match self {
            Self::Founding | Self::Waiting => None,
            Self::Learner { member_id } | Self::Voter { member_id } => Some(member_id),
            Self::Lost { member_id } => member_id,
        }
    }

    /// The word that `musterctl members` shows.
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
pub struct Record {
    pub phase: Phase,
    /// Starts at 0 and increases with each replacement. Data of an earlier generation must not be
    /// used.
    pub generation: u32,
    /// Log index at which the phase was entered; the node that has waited longest is next.
    pub since: u64,
    /// The name and peer URL of its member in etcd, now or once it is added.
    pub seat: Seat,
}

/// Name and peer URL of an etcd member: an item of `--initial-cluster`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    pub name: NodeName,
    pub peer_url: String,
}

/// The etcd member of a removed node, until etcd has removed it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// `None` if the node was removed before its member was seen.
    pub member_id: Option<u64>,
    pub generation: u32,
    pub seat: Seat,
    /// The member was a learner when its node was removed.
    #[serde(default)]
    pub learner: bool,
}

/// The plan for the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The initial cluster, fixed by the birth certificate.
    founders: BTreeMap<NodeId, Seat>,
    records: BTreeMap<NodeId, Record>,
    departed: BTreeMap<NodeId, Departed>,
}

/// A node's task in the etcd plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// Run no etcd: the node is a worker.
    Nothing,
    /// Do not run etcd yet. Data of an earlier generation must be set aside.
    Wait { generation: u32, reason: &'static str },
    /// Start etcd and keep it running.
    Run { generation: u32, start: Start, initial_cluster: Vec<Seat> },
}

/// etcd's `--initial-cluster-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Start together with the other founders.
    New,
    /// Start as a member that was added to a running cluster.
    Existing,
}

impl Plan {
    /// Every control-plane node in the plan.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Record)> {
        self.records.iter()
    }

    /// The plan for this node.
    pub fn record(&self, node: &NodeId) -> Option<&Record> {
        self.records.get(node)
    }

    /// Removed nodes whose etcd members are not removed yet.
    pub fn departed(&self) -> impl ExactSizeIterator<Item = (&NodeId, &Departed)> {
        self.departed.iter()
    }

    /// The initial cluster; never changes.
    pub fn founders(&self) -> Vec<Seat> {
        let mut seats: Vec<_> = self.founders.values().cloned().collect();
        seats.sort();
        seats
    }

    /// The node's task in the etcd plan.
    pub fn assignment(&self, node: &NodeId) -> Assignment {
        let Some(record) = self.records.get(node) else { return Assignment::Nothing };
        let generation = record.generation;
        let wait = |reason| Assignment::Wait { generation, reason };
        match record.phase {
            Phase::Waiting => wait("the leader to add it to etcd"),
            Phase::Lost { .. } => wait("the leader to remove its lost etcd member"),
            Phase::Founding | Phase::Learner { .. } | Phase::Voter { .. } => {
                let founding = generation == 0 && self.founders.contains_key(node);
                let (start, initial_cluster) = if founding {
                    (Start::New, self.founders())
                } else {
                    (Start::Existing, self.seats())
                };
                Assignment::Run { generation, start, initial_cluster }
            }
        }
    }

    /// Every etcd member, as far as the plan knows.
    fn seats(&self) -> Vec<Seat> {
        let held = self.records.values().filter(|r| !matches!(r.phase, Phase::Waiting));
        let mut seats: Vec<_> = held.map(|r| r.seat.clone()).collect();
        seats.extend(self.departed.values().map(|d| d.seat.clone()));
        seats.sort();
        seats
    }

    /// The node that is a learner; at most one.
    pub fn learner(&self) -> Option<&NodeId> {
        let mut records = self.records.iter();
        records.find(|(_, r)| matches!(r.phase, Phase::Learner { .. })).map(|(node, _)| node)
    }

    pub(super) fn found(&mut self, at: At, founders: &[Founder]) {
        for founder in founders {
            let Some(address) = founder.addresses.first() else { continue };
            let seat = Seat { name: founder.name.clone(), peer_url: peer_url(address) };
            let node = super::node_id(&founder.public_key);
            self.founders.insert(node, seat.clone());
            let record = Record { phase: Phase::Founding, generation: 0, since: at.index, seat };
            self.records.insert(node, record);
        }
    }

    /// Puts a new control-plane node at the end of the queue.
    pub(super) fn enlist(&mut self, at: At, member: &Member) {
        let Some(address) = member.addresses.first() else { return };
        let seat = Seat { name: member.name.clone(), peer_url: peer_url(address) };
        let record = Record { phase: Phase::Waiting, generation: 0, since: at.index, seat };
        self.records.insert(member.id, record);
    }

    /// Takes a removed node out of the plan and schedules the removal of its etcd member, if any. A
    /// waiting node that had a member before leaves its name, in case that member still exists.
    pub(super) fn dismiss(&mut self, node: &NodeId) {
        let Some(record) = self.records.remove(node) else { return };
        if matches!(record.phase, Phase::Waiting) && record.generation == 0 {
            return;
        }
        let departed = Departed {
            member_id: record.phase.member_id(),
            generation: record.generation,
            seat: record.seat,
            learner: matches!(record.phase, Phase::Learner { .. }),
        };
        self.departed.insert(*node, departed);
    }

    /// Returns whether the remaining etcd voters would lose their quorum without this node's
    /// member, by the plan. Lost members and those of removed nodes count, but do not answer.
    pub(super) fn would_lose_quorum_without(&self, node: &NodeId) -> bool {
        let voting = |r: &Record| matches!(r.phase, Phase::Founding | Phase::Voter { .. });
        let lost = |r: &Record| matches!(r.phase, Phase::Lost { .. });
        let Some(record) = self.records.get(node) else { return false };
        if !voting(record) && !lost(record) {
            return false;
        }
        let others = || self.records.iter().filter(|(id, _)| *id != node).map(|(_, r)| r);
        let answering = others().filter(|r| voting(r)).count();
        let silent = others().filter(|r| lost(r)).count()
            + self.departed.values().filter(|d| !d.learner).count();
        answering < majority(answering + silent)
    }
}

impl ClusterState {
    /// The etcd plan.
    pub fn etcd(&self) -> &Plan {
        &self.etcd
    }

    /// The desired peer URL of the node in etcd, from its preferred address.
    pub fn etcd_peer_url(&self, node: &NodeId) -> Option<String> {
        self.member(node).and_then(|m| m.addresses.first()).map(peer_url)
    }
}

/// The smallest majority of `voters`.
const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The etcd peer URL of a node.
pub fn peer_url(address: &SocketAddr) -> String {
    format!("https://{}", SocketAddr::new(address.ip(), ETCD_PEER_PORT))
}

/// The etcd client URL of a node.
pub fn client_url(address: &SocketAddr) -> String {
    format!("https://{}", SocketAddr::new(address.ip(), ETCD_CLIENT_PORT))
}
