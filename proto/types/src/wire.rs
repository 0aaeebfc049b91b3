//! Names and sizes that both ends of a session must agree on.

pub use super::limits::{MAX_HELLO_MESSAGE, MAX_MESSAGE};

/// ALPN of nodes without a certificate and of an operator's first contact.
pub const ALPN_HELLO: &[u8] = b"muster-hello/1";

/// ALPN of members.
pub const ALPN_NODE: &[u8] = b"muster-node/1";

/// gRPC metadata key that names the target node of a call.
pub const NODE_METADATA: &str = "muster-node";

/// gRPC metadata key of an error: the call has certainly not begun, so it may be repeated.
pub const NOT_BEGUN_METADATA: &str = "muster-not-begun";
