//! Admission control for QUIC handshakes. Unauthenticated peers cost a bounded amount of memory and
//! cannot keep members out. Pure: no clock, no I/O.
//!
//! A handshake takes a permit when it begins. It returns the permit when it ends, becomes a session
//! of a member, or proves the token.

use std::collections::BTreeMap;

use super::source::Source;

/// Permits for sources that are not a member's address.
pub(crate) const STRANGERS: u32 = 256;

/// Permits for the addresses of members, so that other sources cannot take the last one.
pub(crate) const MEMBERS: u32 = 256;

/// Permits that one source may hold.
pub(crate) const PER_SOURCE: u32 = 48;

/// Number of taken permits from which a source must validate its address first (QUIC Retry, RFC
/// 9000 section 8.1.2). A Retry keeps no state here.
pub(crate) const RETRY_FROM: u32 = 32;

/// Decision on a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin the handshake; the permit is taken.
    Accept,
    /// Ask for address validation.
    Retry,
    /// No permit is left.
    Refuse,
}

/// Taken permit; returned through [`Gate::leave`].
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

/// Facts of a first packet that the gate decides on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) source: Source,
    /// True if a member of the directory has this address.
    pub(crate) is_member_address: bool,
    /// True if the source has shown that it receives packets at this address.
    pub(crate) is_validated: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    strangers: u32,
    members: u32,
    /// Only sources that hold a permit, so never more entries than permits.
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
