//! Two machines with one identity: a disk was copied with the key in it. Each would sign for both, so
//! nothing is founded, signed or joined by whoever sees it, until one of them has been wiped.

use std::time::{Duration, Instant};

use super::{PRESENT, View};
use crate::candidate::{Candidate, MAX_ADDRESSES, Standing};

/// How long it is believed after it was seen: longer than an address that fails is left alone.
pub(super) const TWINS: Duration = Duration::from_secs(10);

/// What was seen, and when last.
#[derive(Debug)]
pub(super) struct Twins {
    who: String,
    seen: Instant,
}

impl View {
    /// Compares what someone says of itself under an identity with what is known of that identity.
    /// Whether it is this node's own, used by another machine.
    pub(super) fn compare(&mut self, candidate: &Candidate, now: Instant) -> bool {
        let own = &self.own.candidate;
        let is_own = candidate.id() == own.id();
        let known = if is_own {
            // What this node says of itself does not change while it looks for a cluster.
            let at = &own.addresses[..own.addresses.len().min(MAX_ADDRESSES)];
            let is_other = own.name != candidate.name
                || !at.is_empty() && at != candidate.addresses.as_slice();
            Some(own).filter(|_| is_other)
        } else {
            // Whoever restarts elsewhere as quickly as this is believed the next time.
            let recent = |heard: Instant| now.saturating_duration_since(heard) < PRESENT;
            let known = self.peers.get(&candidate.id()).filter(|peer| recent(peer.heard));
            let is_other = |known: &&Candidate| {
                let both = [known, candidate];
                let is_member = |one: &&Candidate| matches!(one.standing, Standing::Member(_));
                let shares = |address| candidate.addresses.contains(address);
                let is_elsewhere = both.iter().all(|one| !one.addresses.is_empty())
                    && !known.addresses.iter().any(shares);
                !both.iter().any(is_member) && (known.name != candidate.name || is_elsewhere)
            };
            known.map(|peer| &peer.candidate).filter(is_other)
        };
        let Some(known) = known else { return false };
        let who = format!("{} and {}", told(known), told(candidate));
        self.twins = Some(Twins { who, seen: now });
        is_own
    }

    /// Which two machines have one identity, and what is to be done about it.
    pub fn twins(&self, now: Instant) -> Option<String> {
        let twins = self.twins.as_ref();
        let twins = twins.filter(|twins| now.saturating_duration_since(twins.seen) < TWINS)?;
        Some(format!(
            "{} to have an identity each: the disk of one is a copy of the other's, with its \
             identity.key; wipe the state directory of the copy",
            twins.who
        ))
    }
}

fn told(candidate: &Candidate) -> String {
    match candidate.addresses.first() {
        Some(address) => format!("{} ({address})", candidate.name),
        None => candidate.name.to_string(),
    }
}
