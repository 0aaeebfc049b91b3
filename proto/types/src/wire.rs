//! Names and sizes that both ends of a session must agree on.

/// ALPN of nodes without a certificate and of an operator's first contact.
pub const ALPN_HELLO: &[u8] = b"muster-hello/1";

/// ALPN of members.
pub const ALPN_NODE: &[u8] = b"muster-node/1";

/// gRPC metadata key that names the target node of a call.
pub const NODE_METADATA: &str = "muster-node";

/// Largest message that either side of a QUIC session decodes, in bytes. Snapshots are streamed in
/// smaller pieces.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Largest message from a peer without a certificate, in bytes.
pub const MAX_HELLO_MESSAGE: usize = 64 << 10;
