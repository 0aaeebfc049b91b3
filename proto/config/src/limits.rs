//! Bounds of the document. The table of fields, the reader and the JSON Schema use them. Those that
//! hold beyond it too are `muster_types::limits`.

pub use muster_types::limits::MAX_OPERATORS;
pub(super) use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS};

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 256 << 10;

/// Most subnets. Each address of the machine is compared with each.
pub(super) const MAX_SUBNETS: usize = 16;

/// Most DNS servers. Each is queried in turn.
pub(super) const MAX_DNS_SERVERS: usize = 8;

/// Most static peers. Each is dialled until the node is formed.
pub(super) const MAX_STATIC_PEERS: usize = 64;

/// Most patches, and most patterns of one patch. Every pattern with a wildcard is matched with every
/// named node.
pub(super) const MAX_PATCHES: usize = 256;
