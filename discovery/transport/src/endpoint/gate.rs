//! Admission control for QUIC handshakes. Unauthenticated peers cost a bounded amount of memory and
//! cannot keep members out. Pure: no clock, no I/O.
//!
//! A handshake takes a permit when it begins. It returns the permit when it ends, becomes a session
//! of a member, or proves the token.

use std::collections::BTreeMap;

use super::source::Source;

/// Permits for sources that are not a member's address.
pub(crate) const OTHER_PERMITS: u32 = 256;

/// Permits for the addresses of members, so that other sources cannot take the last one.
pub(crate) const MEMBER_PERMITS: u32 = 256;

/// Permits that one source may hold.
pub(crate) const MAX_PER_SOURCE: u32 = 48;

/// Number of taken permits from which a source must validate its address first (QUIC Retry, RFC
/// 9000 section 8.1.2). A Retry keeps no state here.
pub(crate) const RETRY_THRESHOLD: u32 = 32;

/// Decision on a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Begin the handshake; the permit is taken.
    Accept,
    /// Ask for address validation.
    Retry,
    /// No permit is left.
    Refuse,
}

/// Taken permit; returned through [`Gate::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandshakePermit {
    source: Source,
    class: Class,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Member,
}

/// Facts of a first packet that the gate decides on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandshakeRequest {
    pub(crate) source: Source,
    /// True if a member of the directory has this address.
    pub(crate) is_member_address: bool,
    /// True if the source has shown that it receives packets at this address.
    pub(crate) is_validated: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    others: u32,
    members: u32,
    /// Only sources that hold a permit, so never more entries than permits.
    sources: BTreeMap<Source, u32>,
}

impl Gate {
    pub(crate) fn acquire(
        &mut self,
        request: HandshakeRequest,
    ) -> (Decision, Option<HandshakePermit>) {
        let HandshakeRequest { source, is_member_address, is_validated } = request;
        let class = if is_member_address { Class::Member } else { Class::Other };
        let held = self.sources.get(&source).copied().unwrap_or(0);
        let (taken, limit) = match class {
            Class::Other => (self.others, OTHER_PERMITS),
            Class::Member => (self.members, MEMBER_PERMITS),
        };
        if !is_validated && (taken >= RETRY_THRESHOLD || held >= MAX_PER_SOURCE / 2) {
            return (Decision::Retry, None);
        }
        if taken >= limit || held >= MAX_PER_SOURCE {
            return (Decision::Refuse, None);
        }
        *self.count(class) += 1;
        self.sources.insert(source, held + 1);
        (Decision::Accept, Some(HandshakePermit { source, class }))
    }

    pub(crate) fn release(&mut self, permit: HandshakePermit) {
        let count = self.count(permit.class);
        *count = count.saturating_sub(1);
        if let Some(held) = self.sources.get_mut(&permit.source) {
            *held -= 1;
            if *held == 0 {
                self.sources.remove(&permit.source);
            }
        }
    }

    fn count(&mut self, class: Class) -> &mut u32 {
        match class {
            Class::Other => &mut self.others,
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

    fn request_from(host: u32) -> HandshakeRequest {
        HandshakeRequest { source: from(host), is_member_address: false, is_validated: false }
    }

    #[test]
    fn a_flood_from_invented_addresses_is_asked_to_prove_them() {
        let mut gate = Gate::default();
        let decisions: Vec<_> = (0..2000).map(|host| gate.acquire(request_from(host)).0).collect();
        assert_eq!(decisions.iter().filter(|v| **v == Decision::Accept).count(), 32);
        assert!(decisions[32..].iter().all(|v| *v == Decision::Retry));
        assert_eq!(gate.sources.len(), 32);
        let honest = HandshakeRequest { is_validated: true, ..request_from(5000) };
        assert_eq!(gate.acquire(honest).0, Decision::Accept);
    }

    #[test]
    fn one_source_cannot_take_every_permit() {
        let mut gate = Gate::default();
        let flood = HandshakeRequest { is_validated: true, ..request_from(1) };
        let accepted = (0..2000).filter(|_| gate.acquire(flood).0 == Decision::Accept).count();
        assert_eq!(accepted, MAX_PER_SOURCE as usize);
        assert_eq!(gate.acquire(request_from(2)).0, Decision::Retry);
        assert_eq!(
            gate.acquire(HandshakeRequest { is_validated: true, ..request_from(2) }).0,
            Decision::Accept
        );
    }

    #[test]
    fn other_sources_cannot_keep_members_out() {
        let mut gate = Gate::default();
        for host in 0..1000 {
            gate.acquire(HandshakeRequest { is_validated: true, ..request_from(host) });
        }
        assert_eq!(gate.others, OTHER_PERMITS);
        let member =
            HandshakeRequest { source: from(7000), is_member_address: true, is_validated: false };
        assert_eq!(gate.acquire(member).0, Decision::Accept);
    }

    #[test]
    fn a_released_permit_can_be_acquired_again() {
        let mut gate = Gate::default();
        for _ in 0..10_000 {
            let (decision, permit) = gate.acquire(request_from(1));
            assert_eq!(decision, Decision::Accept);
            gate.release(permit.unwrap());
        }
        assert!(gate.sources.is_empty());
        assert_eq!(gate.others, 0);
    }
}
