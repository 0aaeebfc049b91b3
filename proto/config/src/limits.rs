//! Bounds of the document. The table of fields, the reader and the JSON Schema use them.

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 256 << 10;

/// Most operators in a document. Their keys are part of every greeting before birth.
pub const MAX_OPERATORS: usize = 16;

/// Most founders of a cluster. More voters would slow every commit down.
pub(super) const MAX_FOUNDERS: usize = 7;

/// Most addresses of a machine. They travel in its description of itself.
pub(super) const MAX_ADDRESSES: usize = 16;

/// Most subnets. Each address of the machine is compared with each.
pub(super) const MAX_SUBNETS: usize = 16;

/// Most DNS servers. Each is queried in turn.
pub(super) const MAX_DNS_SERVERS: usize = 8;

/// Most static peers. Each is dialled until the node is formed.
pub(super) const MAX_STATIC_PEERS: usize = 64;

/// Most patches, and most patterns of one patch. Every patch is matched with every named node.
pub(super) const MAX_PATCHES: usize = 256;
