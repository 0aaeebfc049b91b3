//! What a node without a cluster knows of the others, and what it should do about it. Pure: the
//! time is an argument.
//!
//! A peer counts as a candidate only while this node reaches it. An address that nobody has
//! answered at is *unknown*, not *nobody*: it holds a proposal back for [`GRACE`] from the moment it
//! was first heard of, and not a moment longer. With the founders named in the config nothing
//! unknown matters, since who is meant is known.

mod decide;
mod places;
#[cfg(test)]
mod tests;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_types::{ClusterId, NodeId, NodeName, Role};

use super::candidate::{Candidate, Standing};
use crate::birth::Founder;
use places::Place;
use twins::Twins;

/// How long after the start nothing is proposed, so that every source has been asked once.
pub const LOOK: Duration = Duration::from_millis(300);

/// The same for a node that would found alone: nobody else has to agree.
pub const LOOK_ALONE: Duration = Duration::from_millis(1500);

/// How long the set of founders must have stayed the same.
pub const SETTLE: Duration = Duration::from_millis(100);

/// How long an address that does not answer may hold back a proposal.
pub const GRACE: Duration = Duration::from_secs(3);

/// How long a peer that is bound by another birth may hold back a proposal without it.
pub const BOUND_GRACE: Duration = Duration::from_secs(10);

/// How much later than the one before it each founder proposes when the first one does not.
pub const RANK: Duration = Duration::from_secs(3);

/// How long a peer that is not heard of any more counts as present.
pub const PRESENT: Duration = Duration::from_secs(3);

/// How often a peer is greeted.
pub const GREET: Duration = Duration::from_millis(500);

/// After how long an address that does not answer is dialled again: at first, and at most four
/// times that.
pub const REDIAL: Duration = Duration::from_secs(1);

/// The most addresses that are dialled, whoever names them.
pub const MAX_ADDRESSES: usize = 512;

/// The most peers that are kept in mind.
pub const MAX_PEERS: usize = 512;

/// A peer that has proved the token.
#[derive(Debug, Clone)]
pub struct Peer {
    pub candidate: Candidate,
    /// When it last said anything.
    pub heard: Instant,
    /// When it last answered this node's own greeting.
    pub reached: Option<Instant>,
    /// Since when it has said that it is bound, at this turn.
    bound_since: Option<Instant>,
}

/// What this node brings to a birth.
#[derive(Debug, Clone)]
pub struct Own {
    pub candidate: Candidate,
    /// How many founders it takes.
    pub expect: usize,
    /// The names of the founders, where the config gives them.
    pub founders: Vec<NodeName>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Put this to the founders, sorted by node id.
    Propose(Vec<Founder>),
    /// Ask these members for admission.
    Join(Vec<NodeId>),
    /// Nothing, for this reason; look again at the latest at `until`.
    Wait { reason: String, until: Option<Instant> },
}

/// All of it.
#[derive(Debug)]
pub struct View {
    own: Own,
    started: Instant,
    places: BTreeMap<SocketAddr, Place>,
    peers: BTreeMap<NodeId, Peer>,
    /// Addresses at which this node met itself.
    mine: BTreeSet<SocketAddr>,
    /// The founders that would be proposed, and since when that has not changed.
    chosen: (Vec<(NodeId, u64)>, Instant),
    /// Nothing is proposed before; set after a birth that was abandoned.
    not_before: Instant,
    /// Two machines that were seen with one identity.
    twins: Option<Twins>,
    /// When the last decision asked to be made again.
    again: Option<Instant>,
}

impl View {
    pub fn new(own: Own, now: Instant) -> Self {
        Self {
            own,
            started: now,
            places: BTreeMap::new(),
            peers: BTreeMap::new(),
            mine: BTreeSet::new(),
            chosen: (Vec::new(), now),
            not_before: now,
            twins: None,
            again: None,
        }
    }

    pub fn own(&self) -> &Own {
        &self.own
    }

    pub fn peer(&self, id: &NodeId) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Peers that were heard of within [`PRESENT`].
    pub fn present(&self, now: Instant) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers
            .iter()
            .filter(move |(_, peer)| now.saturating_duration_since(peer.heard) < PRESENT)
    }

    /// Takes what a proved peer says of itself; `via` is where it answered this node's greeting, if
    /// it was that.
    pub fn met(&mut self, candidate: Candidate, via: Option<SocketAddr>, now: Instant) {
        let id = candidate.id();
        if self.compare(&candidate, now) {
            if let Some(address) = via {
                let why = format!("{} at {address} has this node's identity", candidate.name);
                self.failed(address, why, now);
            }
            return;
        }
        if id == self.own.candidate.id() {
            if let Some(address) = via {
                self.mine.insert(address);
                self.places.remove(&address);
            }
            return;
        }
        if self.peers.len() >= MAX_PEERS {
            self.peers.retain(|other, peer| {
                *other == id || now.saturating_duration_since(peer.heard) < PRESENT
            });
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            if let Some(address) = via {
                self.failed(address, "too many peers are known already".to_owned(), now);
            }
            return;
        }
        // Nobody needs to dial a worker.
        let addresses = match candidate.role {
            Role::ControlPlane => candidate.addresses.clone(),
            Role::Worker => Vec::new(),
        };
        let known = self.peers.get(&id);
        let is_new =
            known.is_none_or(|known| now.saturating_duration_since(known.heard) >= PRESENT);
        for address in addresses.into_iter().chain(via) {
            let Some(place) = self.place(address, now) else { continue };
            if *place.owner.get_or_insert(id) == id && is_new {
                place.dial_now(now);
            }
        }
        if let Some(address) = via {
            self.answered(address, id, now);
        }
        let before = self.peers.get(&id);
        let is_bound = candidate.standing == Standing::Bound;
        let bound_since = is_bound.then(|| {
            let same = before.filter(|before| before.candidate.turn == candidate.turn);
            same.and_then(|before| before.bound_since).unwrap_or(now)
        });
        let reached = via.map(|_| now).or(before.and_then(|before| before.reached));
        self.peers.insert(id, Peer { candidate, heard: now, reached, bound_since });
    }

    /// This node is reached elsewhere from now on.
    pub fn moved(&mut self, addresses: Vec<SocketAddr>) {
        self.own.candidate.addresses = addresses;
    }

    /// After a birth was abandoned: everyone is asked anew, and nothing is proposed for `pause`.
    pub fn start_over(&mut self, turn: u64, pause: Duration, now: Instant) {
        self.own.candidate.turn = turn;
        self.not_before = now + pause;
        self.chosen = (Vec::new(), now);
        for peer in self.peers.values_mut() {
            peer.reached = None;
        }
        for place in self.places.values_mut().filter(|place| place.owner.is_some()) {
            place.next = now;
        }
    }

    /// Whether someone present belongs to that cluster, and the members of others.
    pub fn living(&self, cluster: ClusterId, now: Instant) -> (bool, Vec<NodeId>) {
        let mut is_alive = false;
        let mut others = Vec::new();
        for (id, peer) in self.present(now) {
            match peer.candidate.standing {
                Standing::Member(its) if its == cluster => is_alive = true,
                Standing::Member(_) => others.push(*id),
                Standing::Fresh | Standing::Bound => {}
            }
        }
        (is_alive, others)
    }

    /// Control-plane nodes for others to find, and whether this node reaches them.
    pub fn worth_telling(&self, now: Instant) -> impl Iterator<Item = (&NodeId, &Candidate, bool)> {
        let told = |(_, peer): &(&NodeId, &Peer)| peer.candidate.role == Role::ControlPlane;
        self.present(now).filter(told).map(move |(id, peer)| {
            let reached = peer.reached.is_some_and(|at| now < at + PRESENT);
            (id, &peer.candidate, reached)
        })
    }
}
