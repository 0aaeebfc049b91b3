//! Founders with real keys, for tests.

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;

use muster_pki::identity::Identity;
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_NAME, MAX_TOKEN_ID};

use super::certificate::{Certificate, Signer as _};
use super::draft::{Draft, Founder};
use super::proposal::Proposal;

/// Reports the coverage of a test. `println!` would be captured unless the test fails.
pub(crate) fn report(line: std::fmt::Arguments<'_>) {
    // Standard error may be closed.
    writeln!(std::io::stderr(), "{line}").ok();
}

/// Identities sorted by node id, as in a proposal.
pub(crate) fn founders(count: usize) -> Vec<Identity> {
    let mut founders: Vec<_> = (0..count).map(|_| Identity::generate()).collect();
    founders.sort_by_key(Identity::node_id);
    founders
}

/// Like [`founders`], the same identities in every run: inputs of the fuzz corpus are signed by
/// them.
pub(crate) fn fixed_founders(count: u8) -> Vec<Identity> {
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let identity = |number| Identity::from_pkcs8(&[&head[..], &[number; 32]].concat()).unwrap();
    let mut founders: Vec<_> = (1..=count).map(identity).collect();
    founders.sort_by_key(Identity::node_id);
    founders
}

pub(crate) fn draft(founders: &[Identity]) -> Draft {
    let founder = |(n, identity): (usize, &Identity)| Founder {
        public_key: identity.public_key(),
        name: format!("cp-{n}").parse().unwrap(),
        addresses: vec![format!("192.0.2.{n}:50000").parse().unwrap()],
        epoch: n as u64,
    };
    Draft {
        token_id: "abcdefghij".to_owned(),
        founders: founders.iter().enumerate().map(founder).collect(),
        nonce: [7; 32],
        config_digest: [8; 32],
        proposer: founders[0].node_id(),
    }
}

/// A draft with as many and as long parts as are allowed.
pub(crate) fn largest_draft() -> Draft {
    let mut draft = draft(&founders(MAX_FOUNDERS));
    let address = SocketAddrV6::new(Ipv6Addr::from(u128::MAX), u16::MAX, 0, u32::MAX);
    for (n, founder) in draft.founders.iter_mut().enumerate() {
        founder.name = format!("{n:n>MAX_NAME$}").parse().unwrap();
        founder.addresses = vec![address.into(); MAX_ADDRESSES];
        founder.epoch = u64::MAX;
    }
    Draft { token_id: "t".repeat(MAX_TOKEN_ID), ..draft }
}

pub(crate) fn proposal(founders: &[Identity]) -> Proposal {
    Proposal::new(draft(founders)).unwrap()
}

/// A certificate signed by all of them.
pub(crate) fn certificate(founders: &[Identity]) -> Certificate {
    let proposal = Arc::new(proposal(founders));
    let id = proposal.id();
    let signatures = founders.iter().map(|founder| (founder.node_id(), founder.sign_promise(&id)));
    Certificate::new(Arc::clone(&proposal), signatures.collect())
}

pub(crate) fn born(count: usize) -> Certificate {
    certificate(&founders(count))
}
