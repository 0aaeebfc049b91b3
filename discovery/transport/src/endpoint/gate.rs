//! Decides which handshakes may begin, so that strangers cost a bounded amount of memory and cannot
//! keep members out. Pure: no clock, no I/O.
//!
//! A place is taken when a handshake begins and given back when it has become a session of a member
//! or a session that proved the token, or has ended.

use std::collections::BTreeMap;

use super::source::Source;

/// Places for sources that are no member's address.
pub(crate) const STRANGERS: u32 = 256;

/// Places for the addresses of members, so that strangers cannot take the last one.
pub(crate) const MEMBERS: u32 = 256;

/// Places that one source may hold.
pub(crate) const PER_SOURCE: u32 = 48;

/// With so many places taken a source must first show that it can be reached (QUIC Retry, RFC 9000
/// section 8.1.2), which keeps no state here.
pub(crate) const RETRY_FROM: u32 = 32;

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin the handshake; the place is taken.
    Accept,
    /// Ask for proof of the address.
    Retry,
    /// No place is left.
    Refuse,
}

/// A place that was taken; given back through [`Gate::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    source: Source,
    class: Class,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Stranger,
    Member,
}

/// A first packet, as far as the gate is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) source: Source,
    /// Whether a member of the directory has this address.
    pub(crate) is_member_address: bool,
    /// Whether the source has shown that it receives what is sent to this address.
    pub(crate) is_validated: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    strangers: u32,
    members: u32,
    /// Only sources that hold a place, so never more entries than places.
    sources: BTreeMap<Source, u32>,
}

impl Gate {
    pub(crate) fn arrive(&mut self, arrival: Arrival) -> (Verdict, Option<Place>) {
        let Arrival { source, is_member_address, is_validated } = arrival;
        let class = if is_member_address { Class::Member } else { Class::Stranger };
        let held = self.sources.get(&source).copied().unwrap_or(0);
        let (taken, places) = match class {
            Class::Stranger => (self.strangers, STRANGERS),
            Class::Member => (self.members, MEMBERS),
        };
        if !is_validated && (taken >= RETRY_FROM || held >= PER_SOURCE / 2) {
            return (Verdict::Retry, None);
        }
        if taken >= places || held >= PER_SOURCE {
            return (Verdict::Refuse, None);
        }
        *self.count(class) += 1;
        self.sources.insert(source, held + 1);
        (Verdict::Accept, Some(Place { source, class }))
    }

    pub(crate) fn leave(&mut self, place: Place) {
        let count = self.count(place.class);
        *count = count.saturating_sub(1);
        if let Some(held) = self.sources.get_mut(&place.source) {
            *held -= 1;
            if *held == 0 {
                self.sources.remove(&place.source);
            }
        }
    }

    fn count(&mut self, class: Class) -> &mut u32 {
        match class {
            Class::Stranger => &mut self.strangers,
            Class::Member => &mut self.members,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn from(host: u32) -> Source {
        Source::from(SocketAddr::from((std::net::Ipv4Addr::from(host), 1)))
    }

    fn stranger(host: u32) -> Arrival {
        Arrival { source: from(host), is_member_address: false, is_validated: false }
    }

    #[test]
    fn a_flood_from_invented_addresses_is_asked_to_prove_them() {
        let mut gate = Gate::default();
        let verdicts: Vec<_> = (0..2000).map(|host| gate.arrive(stranger(host)).0).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Accept).count(), 32);
        assert!(verdicts[32..].iter().all(|v| *v == Verdict::Retry));
        assert_eq!(gate.sources.len(), 32);
        let honest = Arrival { is_validated: true, ..stranger(5000) };
        assert_eq!(gate.arrive(honest).0, Verdict::Accept);
    }

    #[test]
    fn one_source_cannot_take_every_place() {
        let mut gate = Gate::default();
        let flood = Arrival { is_validated: true, ..stranger(1) };
        let accepted = (0..2000).filter(|_| gate.arrive(flood).0 == Verdict::Accept).count();
        assert_eq!(accepted, PER_SOURCE as usize);
        assert_eq!(gate.arrive(stranger(2)).0, Verdict::Retry);
        assert_eq!(gate.arrive(Arrival { is_validated: true, ..stranger(2) }).0, Verdict::Accept);
    }

    #[test]
    fn strangers_cannot_keep_members_out() {
        let mut gate = Gate::default();
        for host in 0..1000 {
            gate.arrive(Arrival { is_validated: true, ..stranger(host) });
        }
        assert_eq!(gate.strangers, STRANGERS);
        let member = Arrival { source: from(7000), is_member_address: true, is_validated: false };
        assert_eq!(gate.arrive(member).0, Verdict::Accept);
    }

    #[test]
    fn a_place_given_back_can_be_taken_again() {
        let mut gate = Gate::default();
        for _ in 0..10_000 {
            let (verdict, place) = gate.arrive(stranger(1));
            assert_eq!(verdict, Verdict::Accept);
            gate.leave(place.unwrap());
        }
        assert!(gate.sources.is_empty());
        assert_eq!(gate.strangers, 0);
    }
}
