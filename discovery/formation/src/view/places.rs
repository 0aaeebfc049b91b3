//! The addresses worth dialling, and what came of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use muster_types::NodeId;

use super::{GRACE, GREET, MAX_ADDRESSES, PRESENT, REDIAL, View};

/// A place worth dialling.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// When it was first heard of.
    pub(super) since: Instant,
    /// When it is to be dialled again.
    pub(super) next: Instant,
    is_busy: bool,
    /// A hint source still names it.
    is_hinted: bool,
    /// Who answers there, or who says it is its own.
    pub(super) owner: Option<NodeId>,
    failure: Option<String>,
    /// Dials in a row that came to nothing.
    failures: u32,
}

impl Place {
    /// Whoever is there has just started: what was sent before it did is lost, also by a dial that
    /// is still under way.
    pub(super) fn dial_now(&mut self, now: Instant) {
        self.is_busy = false;
        self.next = now;
        self.failures = 0;
    }
}

impl View {
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

    pub(super) fn place(&mut self, address: SocketAddr, now: Instant) -> Option<&mut Place> {
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
            failures: 0,
        }))
    }

    pub(super) fn answered(&mut self, address: SocketAddr, id: NodeId, now: Instant) {
        if let Some(place) = self.places.get_mut(&address) {
            place.owner = Some(id);
            place.failure = None;
            place.failures = 0;
            place.is_busy = false;
            place.next = now + GREET;
        }
    }

    /// Nobody answered there, or not as someone who holds the token.
    pub fn failed(&mut self, address: SocketAddr, why: String, now: Instant) {
        if let Some(place) = self.places.get_mut(&address) {
            place.is_busy = false;
            place.failure = Some(why);
            place.next = now + REDIAL * (1 << place.failures.min(2));
            place.failures = place.failures.saturating_add(1);
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

    /// Who answers at an address, or says that it is its own.
    pub fn owner(&self, address: &SocketAddr) -> Option<NodeId> {
        self.places.get(address).and_then(|place| place.owner)
    }

    /// What the places that do not answer have to say, for `musterctl status`.
    pub fn silent_places(&self) -> String {
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
