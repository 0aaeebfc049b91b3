//! Deterministic identities and fresh authorities, for tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_types::ClusterId;

use crate::authority::{Authority, AuthorityKind};
use crate::identity::Identity;
use crate::key::ed25519_pkcs8;

/// Deterministic identity: the same in every run.
pub(crate) fn identity(number: u8) -> Identity {
    Identity::from_pkcs8(&ed25519_pkcs8(&[number; 32])).expect("any seed is a key")
}

/// Time at which all certificates of the tests are valid.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

pub(crate) fn authority(kind: AuthorityKind) -> Authority {
    Authority::create(kind, "demo", &ClusterId::from_bytes([3; 32]), now())
}
