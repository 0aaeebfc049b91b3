//! Generated code for the three services: `hello` (strangers with a token), `node` (members) and
//! `operator` (people). Everything in here is what came over the wire: unchecked.

#![allow(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/contract.rs"));

pub use muster::hello::v1 as hello;
pub use muster::node::v1 as node;
pub use muster::operator::v1 as operator;

/// ALPN of nodes without a certificate and of an operator's first contact.
pub const ALPN_HELLO: &[u8] = b"muster-hello/1";

/// ALPN of members.
pub const ALPN_NODE: &[u8] = b"muster-node/1";

/// gRPC metadata key that names the node a call is about.
pub const NODE_METADATA: &str = "muster-node";

/// The largest message either side of a QUIC session decodes, in bytes. Snapshots are streamed in
/// pieces below it.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The largest message a peer without a certificate may send, in bytes.
pub const MAX_HELLO_MESSAGE: usize = 64 << 10;
