//! Addresses to dial, and the results of dialling them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use muster_types::NodeId;

use super::{
    ADDRESS_GRACE, FormationPlanner, GREET_INTERVAL, MAX_DIALLED_ADDRESSES, PEER_TTL, REDIAL_DELAY,
};

/// State of one address to dial.
#[derive(Debug, Clone)]
pub(super) struct AddressState {
    /// Time when it was first seen.
    pub(super) since: Instant,
    /// Time of the next dial.
    pub(super) next: Instant,
    is_busy: bool,
    /// True while a hint source names it.
    is_hinted: bool,
    /// The node that answers there or announces the address; `None` if unknown.
    pub(super) node: Option<NodeId>,
    failure: Option<String>,
    /// Number of failed dials in a row.
    failures: u32,
}

impl AddressState {
    /// Dials again immediately: the node there has just restarted. Packets sent before are lost,
    /// including those of a dial that is still under way.
    pub(super) fn dial_now(&mut self, now: Instant) {
        self.is_busy = false;
        self.next = now;
        self.failures = 0;
    }
}

impl FormationPlanner {
    /// Updates the addresses that the sources name.
    pub fn on_hints(&mut self, hints: &BTreeSet<SocketAddr>, now: Instant) {
        for (address, entry) in &mut self.addresses {
            entry.is_hinted = hints.contains(address);
        }
        for address in hints {
            if let Some(entry) = self.entry(*address, now) {
                entry.is_hinted = true;
            }
        }
        // Drop addresses that no source names and that do not answer.
        let peers = &self.peers;
        self.addresses.retain(|_, entry| {
            entry.is_hinted
                || entry.is_busy
                || now.saturating_duration_since(entry.since) < ADDRESS_GRACE
                || entry.node.is_some_and(|node| peers.contains_key(&node))
        });
    }

    /// Adds addresses that an authenticated peer announces for other nodes.
    pub fn on_peer_hints(&mut self, addresses: &[SocketAddr], now: Instant) {
        for address in addresses {
            self.entry(*address, now);
        }
    }

    pub(super) fn entry(&mut self, address: SocketAddr, now: Instant) -> Option<&mut AddressState> {
        let is_own = self.own.candidate.addresses.contains(&address)
            || self.self_addresses.contains(&address);
        let is_full =
            self.addresses.len() >= MAX_DIALLED_ADDRESSES && !self.addresses.contains_key(&address);
        if is_own || is_full || address.port() == 0 || address.ip().is_unspecified() {
            return None;
        }
        Some(self.addresses.entry(address).or_insert(AddressState {
            since: now,
            next: now,
            is_busy: false,
            is_hinted: false,
            node: None,
            failure: None,
            failures: 0,
        }))
    }

    pub(super) fn on_dial_succeeded(&mut self, address: SocketAddr, id: NodeId, now: Instant) {
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.node = Some(id);
            entry.failure = None;
            entry.failures = 0;
            entry.is_busy = false;
            entry.next = now + GREET_INTERVAL;
        }
    }

    /// Records a failed dial: no answer, or a peer that does not hold the token.
    pub fn on_dial_failed(&mut self, address: SocketAddr, why: String, now: Instant) {
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.is_busy = false;
            entry.failure = Some(why);
            entry.next = now + REDIAL_DELAY * (1 << entry.failures.min(2));
            entry.failures = entry.failures.saturating_add(1);
            if let Some(node) = entry.node
                && self.peers.get(&node).is_none_or(|peer| now - peer.last_seen >= PEER_TTL)
            {
                entry.node = None;
            }
        }
    }

    /// Returns the addresses to greet now and marks them as busy. One per known peer, so that a
    /// peer with many addresses is not greeted many times.
    pub fn take_due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut due = Vec::new();
        let mut busy_nodes: BTreeSet<NodeId> =
            self.addresses.values().filter(|p| p.is_busy).filter_map(|p| p.node).collect();
        let recent: BTreeSet<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.last_reached.is_some_and(|at| now < at + GREET_INTERVAL))
            .map(|(id, _)| *id)
            .collect();
        for (address, entry) in &mut self.addresses {
            let is_spared =
                entry.node.is_some_and(|node| recent.contains(&node) || busy_nodes.contains(&node));
            if entry.is_busy || now < entry.next || is_spared {
                continue;
            }
            entry.is_busy = true;
            busy_nodes.extend(entry.node);
            due.push(*address);
        }
        due
    }

    /// Time at which [`FormationPlanner::take_due`] returns an address again.
    pub fn next_due(&self) -> Option<Instant> {
        let reached = |entry: &AddressState| {
            let peer = entry.node.and_then(|node| self.peers.get(&node));
            peer.and_then(|peer| peer.last_reached).map(|at| at + GREET_INTERVAL)
        };
        let is_busy = |node| self.addresses.values().any(|p| p.is_busy && p.node == Some(node));
        self.addresses
            .values()
            .filter(|entry| !entry.is_busy && !entry.node.is_some_and(is_busy))
            .map(|entry| reached(entry).map_or(entry.next, |at| at.max(entry.next)))
            .min()
    }

    /// The node that answers at an address or announces it.
    pub fn node_at(&self, address: &SocketAddr) -> Option<NodeId> {
        self.addresses.get(address).and_then(|entry| entry.node)
    }

    /// Failures of the addresses that do not answer, for `musterctl status`.
    pub fn unreachable_addresses(&self) -> String {
        let silent: Vec<_> = self
            .addresses
            .values()
            .filter(|entry| entry.node.is_none())
            .filter_map(|entry| entry.failure.as_deref())
            .collect();
        match silent.as_slice() {
            [] => String::new(),
            [only] => format!("; {only}"),
            [first, _] => format!("; {first} (and one more address)"),
            [first, rest @ ..] => format!("; {first} (and {} more addresses)", rest.len()),
        }
    }
}
