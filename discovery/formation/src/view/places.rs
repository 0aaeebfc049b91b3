//! Addresses to dial, and the results of dialling them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use muster_types::NodeId;

use super::{GRACE, GREET, MAX_ADDRESSES, PRESENT, REDIAL, View};

/// State of one address to dial.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Time when it was first seen.
    pub(super) since: Instant,
    /// Time of the next dial.
    pub(super) next: Instant,
    is_busy: bool,
    /// True while a hint source names it.
    is_hinted: bool,
    /// The node that answers there or announces the address; `None` if unknown.
    pub(super) owner: Option<NodeId>,
    failure: Option<String>,
    /// Number of failed dials in a row.
    failures: u32,
}

impl Place {
    /// Dials again immediately: the node there has just restarted. Packets sent before are lost,
    /// including those of a dial that is still under way.
    pub(super) fn dial_now(&mut self, now: Instant) {
        self.is_busy = false;
        self.next = now;
        self.failures = 0;
    }
}

impl View {
    /// Updates the addresses that the sources name.
    pub fn hinted(&mut self, hints: &BTreeSet<SocketAddr>, now: Instant) {
        for (address, place) in &mut self.places {
            place.is_hinted = hints.contains(address);
        }
        for address in hints {
            if let Some(place) = self.place(*address, now) {
                place.is_hinted = true;
            }
        }
        // Drop addresses that no source names and that do not answer.
        let peers = &self.peers;
        self.places.retain(|_, place| {
            place.is_hinted
                || place.is_busy
                || now.saturating_duration_since(place.since) < GRACE
                || place.owner.is_some_and(|owner| peers.contains_key(&owner))
        });
    }

    /// Adds addresses that an authenticated peer announces for other nodes.
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

    /// Records a failed dial: no answer, or a peer that does not hold the token.
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

    /// Returns the addresses to greet now and marks them as busy. One per known peer, so that a
    /// peer with many addresses is not greeted many times.
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

    /// Time at which [`View::due`] returns an address again.
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

    /// The node that answers at an address or announces it.
    pub fn owner(&self, address: &SocketAddr) -> Option<NodeId> {
        self.places.get(address).and_then(|place| place.owner)
    }

    /// Failures of the addresses that do not answer, for `musterctl status`.
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
