//! Bounds on everything in the replicated state. A command that exceeds one is refused. Those of
//! what also crosses the network outside of commands are `muster_types::limits`.

use std::time::Duration;

pub use muster_types::limits::{
    MAX_ADDRESSES, MAX_BIRTH_CERTIFICATE, MAX_DESCRIPTION, MAX_FOUNDERS, MAX_NAME, MAX_OPERATORS,
    MAX_URL, MAX_VERSION,
};

/// Members at one time.
pub const MAX_MEMBERS: usize = 10_000;
/// Identities ever admitted: members and removed nodes together. This bounds the tombstones, which
/// are kept indefinitely.
pub const MAX_IDENTITIES: usize = 100_000;
/// Tokens at one time; beyond it, the oldest token that is no longer valid is evicted.
pub const MAX_TOKENS: usize = 4096;
/// Uses that one token may be given.
pub const MAX_TOKEN_USES: u32 = 1_000_000;
/// The longest ttl of a token with an expiry: ten years.
pub const MAX_TOKEN_TTL: Duration = Duration::from_hours(10 * 365 * 24);
/// Audit entries kept.
pub const MAX_AUDIT_ENTRIES: usize = 2_000;
/// Bytes of an audit entry's actor, action or subject.
pub const MAX_AUDIT_TEXT: usize = 128;
/// Bytes of an audit entry's outcome.
pub const MAX_AUDIT_OUTCOME: usize = 512;
/// Removed nodes listed in the view of the cluster, the latest first.
pub const MAX_VIEW_REMOVED: usize = 1024;
