//! Known peers and addresses of a node without a cluster, and the decisions that follow. Pure: the
//! time is an argument.
//!
//! A peer counts as a candidate only while this node reaches it. An address that has not answered
//! is *unknown*, not *absent*: it delays a proposal for [`ADDRESS_GRACE`] after it was first seen, and no
//! longer. If the config names the founders, unknown addresses do not matter.

mod addresses;
mod decide;
mod duplicate_identity;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_types::{ClusterId, NodeId, NodeName, Role};

use super::candidate::{Candidate, CandidateState};
use crate::birth::Founder;

/// Delay after the start before the first proposal, so that every source has been polled once.
pub const DISCOVERY_DELAY: Duration = Duration::from_millis(300);

/// [`DISCOVERY_DELAY`] of a node that would found alone: longer, since no other node has to agree.
pub const DISCOVERY_DELAY_ALONE: Duration = Duration::from_millis(1500);

/// Time for which the set of founders must have been stable.
pub const STABLE_TIME: Duration = Duration::from_millis(100);

/// Maximum time for which an address that does not answer delays a proposal.
pub const ADDRESS_GRACE: Duration = Duration::from_secs(3);

/// Maximum time for which a peer bound by another birth delays a proposal without it.
pub const BOUND_PEER_GRACE: Duration = Duration::from_secs(10);

/// Delay between founders in rank order: each proposes this much later than the one before it.
pub const RANK_DELAY: Duration = Duration::from_secs(3);

/// Time for which a peer counts as present after its last message.
pub const PEER_TTL: Duration = Duration::from_secs(3);

/// Interval between greetings to a peer.
pub const GREET_INTERVAL: Duration = Duration::from_millis(500);

/// Initial delay before an address that does not answer is dialled again; at most four times
/// this.
pub const REDIAL_DELAY: Duration = Duration::from_secs(1);

/// Maximum number of addresses to dial, from all sources.
pub const MAX_DIALLED_ADDRESSES: usize = 512;

/// Maximum number of known peers.
pub const MAX_PEERS: usize = 512;

/// A peer that has proved the token.
#[derive(Debug, Clone)]
pub struct Peer {
    pub candidate: Candidate,
    /// Time of its last message.
    pub last_seen: Instant,
    /// Time of its last reply to this node's greeting; `None` if it never replied.
    pub last_reached: Option<Instant>,
    /// Time since which it has reported to be bound at this epoch; `None` if it is not.
    bound_since: Option<Instant>,
}

/// This node's own parameters for a birth.
#[derive(Debug, Clone)]
pub struct LocalNode {
    pub candidate: Candidate,
    /// Number of founders.
    pub expect: usize,
    /// The names of the founders if the config lists them, otherwise empty.
    pub founders: Vec<NodeName>,
}

/// The next step of formation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Propose these founders, sorted by node id.
    Propose(Vec<Founder>),
    /// Request admission from these members.
    Join(Vec<NodeId>),
    /// Wait, for this reason; decide again at `until` at the latest.
    Wait { reason: String, until: Option<Instant> },
}

/// Decides the next step of formation from the known peers and addresses.
#[derive(Debug)]
pub struct FormationPlanner {
    own: LocalNode,
    started: Instant,
    addresses: BTreeMap<SocketAddr, addresses::AddressState>,
    peers: BTreeMap<NodeId, Peer>,
    /// Addresses at which this node reached itself.
    self_addresses: BTreeSet<SocketAddr>,
    /// The founders to propose, with the time since which they have not changed.
    selection: (Vec<(NodeId, u64)>, Instant),
    /// No proposal before this time; set after an abandoned birth.
    not_before: Instant,
    /// Two machines seen with the same identity.
    duplicate_identity: Option<duplicate_identity::DuplicateIdentity>,
    /// Time at which to decide again.
    next_decision_at: Option<Instant>,
}

impl FormationPlanner {
    pub fn new(own: LocalNode, now: Instant) -> Self {
        Self {
            own,
            started: now,
            addresses: BTreeMap::new(),
            peers: BTreeMap::new(),
            self_addresses: BTreeSet::new(),
            selection: (Vec::new(), now),
            not_before: now,
            duplicate_identity: None,
            next_decision_at: None,
        }
    }

    pub fn own(&self) -> &LocalNode {
        &self.own
    }

    pub fn peer(&self, id: &NodeId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Peers whose last message is younger than [`PEER_TTL`].
    pub fn present(&self, now: Instant) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers
            .iter()
            .filter(move |(_, peer)| now.saturating_duration_since(peer.last_seen) < PEER_TTL)
    }

    /// Records an authenticated peer's description of itself. `via` is the address at which it
    /// answered this node's greeting, if it did.
    pub fn on_peer(&mut self, candidate: Candidate, via: Option<SocketAddr>, now: Instant) {
        let id = candidate.id();
        if self.check_duplicate(&candidate, now) {
            if let Some(address) = via {
                let why = format!("{} at {address} has this node's identity", candidate.name);
                self.on_dial_failed(address, why, now);
            }
            return;
        }
        if id == self.own.candidate.id() {
            if let Some(address) = via {
                self.self_addresses.insert(address);
                self.addresses.remove(&address);
            }
            return;
        }
        if self.peers.len() >= MAX_PEERS {
            self.peers.retain(|other, peer| {
                *other == id || now.saturating_duration_since(peer.last_seen) < PEER_TTL
            });
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            if let Some(address) = via {
                self.on_dial_failed(address, "too many peers".to_owned(), now);
            }
            return;
        }
        // Workers need not be dialled.
        let addresses = match candidate.role {
            Role::ControlPlane => candidate.addresses.clone(),
            Role::Worker => Vec::new(),
        };
        let known = self.peers.get(&id);
        let is_new =
            known.is_none_or(|known| now.saturating_duration_since(known.last_seen) >= PEER_TTL);
        for address in addresses.into_iter().chain(via) {
            let Some(entry) = self.entry(address, now) else { continue };
            if *entry.node.get_or_insert(id) == id && is_new {
                entry.dial_now(now);
            }
        }
        if let Some(address) = via {
            self.on_dial_succeeded(address, id, now);
        }
        let before = self.peers.get(&id);
        let is_bound = candidate.state == CandidateState::Bound;
        let bound_since = is_bound.then(|| {
            let same = before.filter(|before| before.candidate.epoch == candidate.epoch);
            same.and_then(|before| before.bound_since).unwrap_or(now)
        });
        let reached = via.map(|_| now).or(before.and_then(|before| before.last_reached));
        self.peers
            .insert(id, Peer { candidate, last_seen: now, last_reached: reached, bound_since });
    }

    /// Updates this node's own addresses.
    pub fn on_address_change(&mut self, addresses: Vec<SocketAddr>) {
        self.own.candidate.addresses = addresses;
    }

    /// Starts an epoch, at the start or after an abandoned birth: greets all peers again and proposes
    /// nothing for `pause`.
    pub fn start_epoch(&mut self, epoch: u64, pause: Duration, now: Instant) {
        self.own.candidate.epoch = epoch;
        self.not_before = now + pause;
        self.selection = (Vec::new(), now);
        for peer in self.peers.values_mut() {
            peer.last_reached = None;
        }
        for entry in self.addresses.values_mut().filter(|entry| entry.node.is_some()) {
            entry.next = now;
        }
    }

    /// Returns true if a present peer belongs to that cluster, and the members of other clusters.
    pub fn cluster_members(&self, cluster: ClusterId, now: Instant) -> (bool, Vec<NodeId>) {
        let mut is_alive = false;
        let mut others = Vec::new();
        for (id, peer) in self.present(now) {
            match peer.candidate.state {
                CandidateState::Member(its) if its == cluster => is_alive = true,
                CandidateState::Member(_) => others.push(*id),
                CandidateState::Fresh | CandidateState::Bound => {}
            }
        }
        (is_alive, others)
    }

    /// Control-plane nodes to announce to other nodes, each with true if this node reaches it.
    pub fn announced_peers(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&NodeId, &Candidate, bool)> {
        let is_announced = |(_, peer): &(&NodeId, &Peer)| peer.candidate.role == Role::ControlPlane;
        self.present(now).filter(is_announced).map(move |(id, peer)| {
            let reached = peer.last_reached.is_some_and(|at| now < at + PEER_TTL);
            (id, &peer.candidate, reached)
        })
    }
}
