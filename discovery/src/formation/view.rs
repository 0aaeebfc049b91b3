//! What a node without a cluster knows of the others, and what it should do about it. Pure: the
//! time is an argument.
//!
//! A peer counts as a candidate only while this node reaches it. An address that nobody has
//! answered at is *unknown*, not *nobody*: it holds a proposal back for [`GRACE`] from the moment it
//! was first heard of, and not a moment longer. With the founders named in the config nothing
//! unknown matters, since who is meant is known.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_proto::{ClusterId, NodeId, NodeName, PublicKey, Role};

use crate::birth::{Founder, Record};

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

/// How often an address that does not answer is dialled.
pub const REDIAL: Duration = Duration::from_secs(1);

/// The most addresses that are dialled, whoever names them.
pub const MAX_ADDRESSES: usize = 512;

/// The most peers that are kept in mind.
pub const MAX_PEERS: usize = 512;

/// How a candidate says it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Fresh,
    Bound,
    Member(ClusterId),
}

/// What a peer says of itself, checked for form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    pub addresses: Vec<SocketAddr>,
    pub turn: u64,
    pub standing: Standing,
    pub birth_fields: BTreeMap<String, String>,
}

impl Candidate {
    pub fn id(&self) -> NodeId {
        muster_pki::identity::node_id(&self.public_key)
    }

    fn founder(&self) -> Founder {
        Founder {
            public_key: self.public_key,
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            turn: self.turn,
        }
    }
}

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

/// A place worth dialling.
#[derive(Debug, Clone)]
struct Place {
    since: Instant,
    next: Instant,
    is_busy: bool,
    /// A hint source still names it.
    is_hinted: bool,
    /// Who answers there, or who says it is its own.
    owner: Option<NodeId>,
    failure: Option<String>,
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

    /// Takes the addresses that the sources name now.
    pub fn hinted(&mut self, hints: &BTreeSet<SocketAddr>, now: Instant) {
        for (address, place) in &mut self.places {
            place.is_hinted = hints.contains(address);
        }
        for address in hints {
            if let Some(place) = self.place(*address, now) {
                place.is_hinted = true;
            }
        }
        // What no source names and nobody answers at is forgotten.
        let peers = &self.peers;
        self.places.retain(|_, place| {
            place.is_hinted
                || place.is_busy
                || now.saturating_duration_since(place.since) < GRACE
                || place.owner.is_some_and(|owner| peers.contains_key(&owner))
        });
    }

    /// Takes addresses that a proved peer names for a third one.
    pub fn relayed(&mut self, addresses: &[SocketAddr], now: Instant) {
        for address in addresses {
            self.place(*address, now);
        }
    }

    fn place(&mut self, address: SocketAddr, now: Instant) -> Option<&mut Place> {
        let is_own =
            self.own.candidate.addresses.contains(&address) || self.mine.contains(&address);
        let is_full = self.places.len() >= MAX_ADDRESSES && !self.places.contains_key(&address);
        if is_own || is_full || address.port() == 0 || address.ip().is_unspecified() {
            return None;
        }
        Some(self.places.entry(address).or_insert(Place {
            since: now,
            next: now,
            is_busy: false,
            is_hinted: false,
            owner: None,
            failure: None,
        }))
    }

    /// Takes what a proved peer says of itself; `via` is where it answered this node's greeting, if
    /// it was that.
    pub fn met(&mut self, candidate: Candidate, via: Option<SocketAddr>, now: Instant) {
        let id = candidate.id();
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
        for address in addresses.into_iter().chain(via) {
            if let Some(place) = self.place(address, now) {
                place.owner.get_or_insert(id);
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

    fn answered(&mut self, address: SocketAddr, id: NodeId, now: Instant) {
        if let Some(place) = self.places.get_mut(&address) {
            place.owner = Some(id);
            place.failure = None;
            place.is_busy = false;
            place.next = now + GREET;
        }
    }

    /// Nobody answered there, or not as someone who holds the token.
    pub fn failed(&mut self, address: SocketAddr, why: String, now: Instant) {
        if let Some(place) = self.places.get_mut(&address) {
            place.is_busy = false;
            place.failure = Some(why);
            place.next = now + REDIAL;
            if let Some(owner) = place.owner
                && self.peers.get(&owner).is_none_or(|peer| now - peer.heard >= PRESENT)
            {
                place.owner = None;
            }
        }
    }

    /// The addresses to greet now, each marked as being dialled. One per known peer, so that a peer
    /// with many addresses is not greeted many times.
    pub fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        let mut owners: BTreeSet<NodeId> =
            self.places.values().filter(|p| p.is_busy).filter_map(|p| p.owner).collect();
        let recent: BTreeSet<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.reached.is_some_and(|at| now < at + GREET))
            .map(|(id, _)| *id)
            .collect();
        for (address, place) in &mut self.places {
            let is_spared =
                place.owner.is_some_and(|owner| recent.contains(&owner) || owners.contains(&owner));
            if place.is_busy || now < place.next || is_spared {
                continue;
            }
            place.is_busy = true;
            owners.extend(place.owner);
            due.push(*address);
        }
        due
    }

    /// When [`View::due`] has something again.
    pub fn next_due(&self) -> Option<Instant> {
        let reached = |place: &Place| {
            let peer = place.owner.and_then(|owner| self.peers.get(&owner));
            peer.and_then(|peer| peer.reached).map(|at| at + GREET)
        };
        let is_busy = |owner| self.places.values().any(|p| p.is_busy && p.owner == Some(owner));
        self.places
            .values()
            .filter(|place| !place.is_busy && !place.owner.is_some_and(is_busy))
            .map(|place| reached(place).map_or(place.next, |at| at.max(place.next)))
            .min()
    }

    /// After a birth was abandoned: everyone is asked anew, and nothing is proposed for `pause`.
    pub fn start_over(&mut self, turn: u64, pause: Duration, now: Instant) {
        self.own.candidate.turn = turn;
        self.not_before = now + pause;
        self.chosen = (Vec::new(), now);
        for peer in self.peers.values_mut() {
            peer.reached = None;
        }
        for place in self.places.values_mut() {
            place.next = now;
        }
    }

    /// What to do now that nothing is promised.
    pub fn decide(&mut self, record: &Record, now: Instant) -> Decision {
        let decision = self.weigh(record, now);
        self.again = match &decision {
            Decision::Wait { until, .. } => *until,
            Decision::Propose(_) | Decision::Join(_) => None,
        };
        decision
    }

    fn weigh(&mut self, record: &Record, now: Instant) -> Decision {
        let members = self.members(record, now);
        if !members.is_empty() {
            return Decision::Join(members);
        }
        if let Some(cluster) = record.cluster_id() {
            let reason =
                format!("a member of cluster {} to admit this node again", cluster.short());
            return wait(reason, None);
        }
        if self.own.candidate.role == Role::Worker {
            return wait(format!("a cluster to join{}", self.silent_places()), None);
        }
        if let Some(reason) = self.difference(now).or_else(|| self.same_names(now)) {
            return wait(reason, None);
        }
        self.gather(now)
    }

    /// Members of a cluster that this node may join: control-plane nodes first, since workers
    /// verify no tokens, and then who was heard last.
    fn members(&self, record: &Record, now: Instant) -> Vec<NodeId> {
        let own = record.cluster_id();
        let joinable = |peer: &Peer| match peer.candidate.standing {
            Standing::Member(cluster) => own.is_none_or(|own| own == cluster),
            Standing::Fresh | Standing::Bound => false,
        };
        let mut members: Vec<_> = self.present(now).filter(|(_, peer)| joinable(peer)).collect();
        members.sort_by_key(|(_, peer)| (peer.candidate.role, Reverse(peer.heard)));
        members.into_iter().map(|(id, _)| *id).collect()
    }

    /// Which settings keep a birth from happening, naming both values.
    fn difference(&self, now: Instant) -> Option<String> {
        let own = &self.own.candidate;
        let differing = |(_, peer): (&NodeId, &Peer)| {
            let other = &peer.candidate;
            let paths: BTreeSet<_> =
                own.birth_fields.keys().chain(other.birth_fields.keys()).collect();
            let differ =
                |path: &&String| own.birth_fields.get(*path) != other.birth_fields.get(*path);
            let value = |fields: &BTreeMap<String, String>, path: &str| {
                fields.get(path).map_or_else(|| "unset".to_owned(), |value| format!("{value:?}"))
            };
            let described: Vec<_> = paths
                .into_iter()
                .filter(differ)
                .map(|path| {
                    let here = value(&own.birth_fields, path);
                    let there = value(&other.birth_fields, path);
                    format!("{path} is {here} on {} and {there} on {}", own.name, other.name)
                })
                .collect();
            (!described.is_empty()).then(|| described.join("; "))
        };
        let described: Vec<_> = self.present(now).filter_map(differing).take(4).collect();
        (!described.is_empty()).then(|| {
            format!(
                "the same config on every node, nothing is founded before: {}",
                described.join("; ")
            )
        })
    }

    fn same_names(&self, now: Instant) -> Option<String> {
        let mut names = BTreeMap::from([(&self.own.candidate.name, self.own.candidate.id())]);
        self.present(now).find_map(|(id, peer)| {
            let name = &peer.candidate.name;
            let other = names.insert(name, *id)?;
            let (a, b) = (other.short(), id.short());
            Some(format!("distinct node names: {a} and {b} are both called {name}"))
        })
    }

    /// The founders that this node would propose, or what is lacking.
    fn gather(&mut self, now: Instant) -> Decision {
        let Own { candidate: own, expect, founders } = &self.own;
        let is_meant = |name: &NodeName| founders.is_empty() || founders.contains(name);
        if !is_meant(&own.name) {
            return wait(format!("the founders {} to found the cluster", list(founders)), None);
        }
        let reached = |peer: &Peer| peer.reached.is_some_and(|at| now < at + PRESENT);
        let mut candidates = vec![own];
        for (_, peer) in self.present(now) {
            let candidate = &peer.candidate;
            let fits = candidate.role == Role::ControlPlane && is_meant(&candidate.name);
            if fits && candidate.standing == Standing::Fresh && reached(peer) {
                candidates.push(candidate);
            }
        }
        if candidates.len() < *expect {
            let here: Vec<_> = candidates.iter().map(|candidate| &candidate.name).collect();
            let absent: Vec<_> = founders.iter().filter(|name| !here.contains(name)).collect();
            let who = if absent.is_empty() { String::new() } else { format!(": {}", list(absent)) };
            let reason = format!(
                "{} more of {expect} founders{who}; reached so far: {}{}",
                expect - candidates.len(),
                list(here),
                self.silent_places()
            );
            return wait(reason, None);
        }
        candidates.sort_by_key(|candidate| candidate.id());
        candidates.truncate(*expect);
        let founders: Vec<_> = candidates.into_iter().map(Candidate::founder).collect();
        self.time(founders, now)
    }

    /// Whether it is time to propose these.
    fn time(&mut self, founders: Vec<Founder>, now: Instant) -> Decision {
        let chosen: Vec<_> = founders.iter().map(|f| (f.id(), f.turn)).collect();
        if self.chosen.0 != chosen {
            self.chosen = (chosen, now);
        }
        let me = self.own.candidate.id();
        let names = list(founders.iter().map(|founder| &founder.name));
        let Some(rank) = founders.iter().position(|founder| founder.id() == me) else {
            return wait(format!("the cluster that {names} are founding"), None);
        };
        let is_named = !self.own.founders.is_empty();
        let look = if self.own.expect == 1 && !is_named { LOOK_ALONE } else { LOOK };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let mut until = (self.started + look).max(self.chosen.1 + SETTLE).max(self.not_before);
        let mut reason = format!("{} to propose {names} as founders", founders[0].name);
        if !is_named {
            let unknown = self.places.iter().filter(|(_, place)| place.owner.is_none());
            if let Some((address, place)) = unknown.max_by_key(|(_, place)| place.since)
                && until < place.since + GRACE
                && now < place.since + GRACE
            {
                until = place.since + GRACE;
                reason = format!("an answer from {address}, which may know a cluster");
            }
            let bound = self.present(now).filter_map(|(_, peer)| Some((peer, peer.bound_since?)));
            if let Some((peer, since)) = bound.max_by_key(|(_, since)| *since)
                && until < since + BOUND_GRACE
            {
                until = since + BOUND_GRACE;
                reason = format!("the birth that {} takes part in", peer.candidate.name);
            }
        }
        until += RANK * rank;
        if now < until { wait(reason, Some(until)) } else { Decision::Propose(founders) }
    }

    /// Who answers at an address, or says that it is its own.
    pub fn owner(&self, address: &SocketAddr) -> Option<NodeId> {
        self.places.get(address).and_then(|place| place.owner)
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

    /// When [`View::decide`] may come to something else by time alone.
    pub fn next_decision(&self, now: Instant) -> Option<Instant> {
        self.again.filter(|at| *at > now)
    }

    /// What the places that do not answer have to say, for `musterctl status`.
    fn silent_places(&self) -> String {
        let silent: Vec<_> = self
            .places
            .values()
            .filter(|place| place.owner.is_none())
            .filter_map(|place| place.failure.as_deref())
            .collect();
        match silent.as_slice() {
            [] => String::new(),
            [only] => format!("; {only}"),
            [first, rest @ ..] => format!("; {first} (and {} more addresses)", rest.len()),
        }
    }
}

fn wait(reason: String, until: Option<Instant>) -> Decision {
    Decision::Wait { reason, until }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
