//! Bounds on everything in the replicated state. A command that exceeds one is refused.

use std::time::Duration;

/// Members at one time.
pub const MEMBERS: usize = 10_000;
/// Identities ever admitted: members and removed nodes together. This bounds the tombstones, which
/// are kept indefinitely.
pub const IDENTITIES: usize = 100_000;
/// Founders in a birth certificate.
pub const FOUNDERS: usize = 15;
/// Operators at one time.
pub const OPERATORS: usize = 256;
/// Tokens at one time; beyond it, the oldest token that is no longer valid is evicted.
pub const TOKENS: usize = 4096;
/// Uses that one token may be given.
pub const TOKEN_USES: u32 = 1_000_000;
/// The longest ttl of a token with an expiry: ten years.
pub const TOKEN_TTL: Duration = Duration::from_hours(10 * 365 * 24);
/// Bytes of a token's description.
pub const DESCRIPTION: usize = 256;
/// Addresses of one node.
pub const ADDRESSES: usize = 16;
/// Bytes of a version text.
pub const VERSION: usize = 64;
/// Bytes of a cluster's or operator's name.
pub const NAME: usize = 63;
/// Bytes of the birth certificate as it is stored.
pub const CERTIFICATE: usize = 64 << 10;
/// Bytes of an etcd URL.
pub const URL: usize = 128;
/// Audit entries kept.
pub const AUDIT: usize = 2_000;
/// Bytes of an audit entry's actor, action or subject.
pub const AUDIT_TEXT: usize = 128;
/// Bytes of an audit entry's outcome.
pub const AUDIT_OUTCOME: usize = 512;
/// Removed nodes listed in the view of the cluster, the latest first.
pub const VIEW_REMOVED: usize = 1024;
