//! Admission control for QUIC handshakes. Unauthenticated peers cost a bounded amount of memory and
//! cannot keep members out. Pure: no clock, no I/O.
//!
//! A handshake takes a permit when it begins. It returns the permit when it ends, becomes a session
//! of a member, or proves the token.

use super::concurrency::{ConcurrencyLimiter, Permit};
use super::source::Source;

/// Permits for the addresses of members, and as many for all other sources, so that other sources
/// cannot take the last one.
const MAX_PER_CLASS: usize = 256;

/// Permits that one source may hold.
const MAX_PER_SOURCE: usize = 48;

/// Number of taken permits from which a source must validate its address first (QUIC Retry, RFC
/// 9000 section 8.1.2). A Retry keeps no state here.
const RETRY_THRESHOLD: usize = 32;

/// Decision on a first packet.
#[derive(Debug)]
pub(crate) enum HandshakeDecision {
    /// Begin the handshake.
    Accept(HandshakePermit),
    /// Ask for address validation.
    Retry,
    /// No permit is left.
    Refuse,
}

/// Taken permit, returned on drop.
#[derive(Debug)]
pub(crate) struct HandshakePermit {
    _class: Permit<Class>,
    _source: Permit<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

#[derive(Debug)]
pub(crate) struct Gate {
    classes: ConcurrencyLimiter<Class>,
    sources: ConcurrencyLimiter<Source>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            classes: ConcurrencyLimiter::per_key(MAX_PER_CLASS),
            sources: ConcurrencyLimiter::per_key(MAX_PER_SOURCE),
        }
    }

    pub(crate) fn acquire(&self, request: HandshakeRequest) -> HandshakeDecision {
        let HandshakeRequest { source, is_member_address, is_validated } = request;
        let class = if is_member_address { Class::Member } else { Class::Other };
        let is_loaded = self.classes.held_by(&class) >= RETRY_THRESHOLD
            || self.sources.held_by(&source) >= MAX_PER_SOURCE / 2;
        if !is_validated && is_loaded {
            return HandshakeDecision::Retry;
        }
        match (self.classes.try_acquire(class), self.sources.try_acquire(source)) {
            (Some(class), Some(source)) => {
                HandshakeDecision::Accept(HandshakePermit { _class: class, _source: source })
            }
            _ => HandshakeDecision::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn from(host: u32) -> Source {
        Source::from(SocketAddr::from((Ipv4Addr::from(host), 1)))
    }

    fn request_from(host: u32) -> HandshakeRequest {
        HandshakeRequest { source: from(host), is_member_address: false, is_validated: false }
    }

    fn accepted(gate: &Gate, request: HandshakeRequest) -> Option<HandshakePermit> {
        match gate.acquire(request) {
            HandshakeDecision::Accept(permit) => Some(permit),
            HandshakeDecision::Retry | HandshakeDecision::Refuse => None,
        }
    }

    #[test]
    fn a_flood_from_invented_addresses_is_asked_to_prove_them() {
        let gate = Gate::new();
        let decisions: Vec<_> = (0..2000).map(|host| gate.acquire(request_from(host))).collect();
        let (first, rest) = decisions.split_at(32);
        assert!(first.iter().all(|decision| matches!(decision, HandshakeDecision::Accept(_))));
        assert!(rest.iter().all(|decision| matches!(decision, HandshakeDecision::Retry)));
        assert_eq!((0..2000).filter(|host| gate.sources.held_by(&from(*host)) > 0).count(), 32);
        let honest = HandshakeRequest { is_validated: true, ..request_from(5000) };
        assert!(accepted(&gate, honest).is_some());
    }

    #[test]
    fn one_source_cannot_take_every_permit() {
        let gate = Gate::new();
        let flood = HandshakeRequest { is_validated: true, ..request_from(1) };
        let permits: Vec<_> = (0..2000).filter_map(|_| accepted(&gate, flood)).collect();
        assert_eq!(permits.len(), MAX_PER_SOURCE);
        assert!(matches!(gate.acquire(request_from(2)), HandshakeDecision::Retry));
        let honest = HandshakeRequest { is_validated: true, ..request_from(2) };
        assert!(accepted(&gate, honest).is_some());
    }

    #[test]
    fn other_sources_cannot_keep_members_out() {
        let gate = Gate::new();
        let flood = |host| HandshakeRequest { is_validated: true, ..request_from(host) };
        let decisions: Vec<_> = (0..1000).map(|host| gate.acquire(flood(host))).collect();
        assert_eq!(gate.classes.held_by(&Class::Other), MAX_PER_CLASS);
        assert!(matches!(decisions.last(), Some(HandshakeDecision::Refuse)));
        let member =
            HandshakeRequest { source: from(7000), is_member_address: true, is_validated: false };
        assert!(accepted(&gate, member).is_some());
    }

    #[test]
    fn a_released_permit_can_be_acquired_again() {
        let gate = Gate::new();
        for _ in 0..10_000 {
            assert!(accepted(&gate, request_from(1)).is_some());
        }
        assert_eq!(gate.sources.held_by(&from(1)), 0);
        assert_eq!(gate.classes.held_by(&Class::Other), 0);
    }
}
