//! Detection of duplicate identities: two machines with one key, because a disk was copied. Each
//! would sign for both. A node that sees them founds, signs and joins nothing until one is wiped.

use std::time::{Duration, Instant};

use muster_types::limits::MAX_ADDRESSES;

use super::{FormationPlanner, PEER_TTL};
use crate::candidate::{Candidate, CandidateState};

/// Time for which a duplicate counts after it was seen: longer than the redial delay.
pub(super) const DUPLICATE_TTL: Duration = Duration::from_secs(10);

/// A duplicate identity, with the time when it was last seen.
#[derive(Debug)]
pub(super) struct DuplicateIdentity {
    machines: String,
    seen: Instant,
}

impl FormationPlanner {
    /// Compares a peer's description with what is known of its identity. Returns true if another
    /// machine uses this node's own identity.
    pub(super) fn check_duplicate(&mut self, candidate: &Candidate, now: Instant) -> bool {
        let own = &self.own.candidate;
        let is_own = candidate.id() == own.id();
        let known = if is_own {
            // This node's own description does not change while it looks for a cluster.
            let at = &own.addresses[..own.addresses.len().min(MAX_ADDRESSES)];
            let is_other = own.name != candidate.name
                || !at.is_empty() && at != candidate.addresses.as_slice();
            Some(own).filter(|_| is_other)
        } else {
            // A peer that restarts elsewhere this quickly is accepted at its next message.
            let recent = |last_seen: Instant| now.saturating_duration_since(last_seen) < PEER_TTL;
            let known = self.peers.get(&candidate.id()).filter(|peer| recent(peer.last_seen));
            let is_other = |known: &&Candidate| {
                let both = [known, candidate];
                let is_member = |one: &&Candidate| matches!(one.state, CandidateState::Member(_));
                let shares = |address| candidate.addresses.contains(address);
                let is_elsewhere = both.iter().all(|one| !one.addresses.is_empty())
                    && !known.addresses.iter().any(shares);
                !both.iter().any(is_member) && (known.name != candidate.name || is_elsewhere)
            };
            known.map(|peer| &peer.candidate).filter(is_other)
        };
        let Some(known) = known else { return false };
        let machines = format!("{} and {}", describe(known), describe(candidate));
        self.duplicate_identity = Some(DuplicateIdentity { machines, seen: now });
        is_own
    }

    /// Describes the two machines with one identity, and what to do about it.
    pub fn duplicate_identity(&self, now: Instant) -> Option<String> {
        let found = self.duplicate_identity.as_ref();
        let found =
            found.filter(|found| now.saturating_duration_since(found.seen) < DUPLICATE_TTL)?;
        Some(format!(
            "{} to have an identity each: the disk of one is a copy of the other's, with its \
             identity.key; wipe the state directory of the copy",
            found.machines
        ))
    }
}

fn describe(candidate: &Candidate) -> String {
    match candidate.addresses.first() {
        Some(address) => format!("{} ({address})", candidate.name),
        None => candidate.name.to_string(),
    }
}
