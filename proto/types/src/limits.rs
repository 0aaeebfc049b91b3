//! Bounds on everything that crosses the network, one answer each. A stranger's messages have at most
//! [`MAX_HELLO_MESSAGE`] bytes; its QUIC connection is bounded in
//! discovery/transport/src/endpoint/parameters.rs. Senders stay within them and
//! receivers refuse more. Bounds that only one crate knows (its queues, rates, the size of the
//! replicated state) are not here.

/// Founders of a cluster. Larger Raft groups gain nothing and cost a round trip; `cluster.expect`
/// is odd, because an even number survives no more failures.
pub const MAX_FOUNDERS: usize = 7;

/// Addresses of one node, in a message, a proposal, the registry or a certificate.
pub const MAX_ADDRESSES: usize = 16;

/// Addresses of one node in gossip's metadata. Smaller, because a datagram of 1,150 bytes must also
/// hold other members' news; the first ones are the preferred ones.
pub const MAX_GOSSIP_ADDRESSES: usize = 8;

/// Bytes of a build's version text.
pub const MAX_VERSION: usize = 64;

/// Bytes of a version text in gossip's metadata. Smaller for the same reason as
/// [`MAX_GOSSIP_ADDRESSES`].
pub const MAX_GOSSIP_VERSION: usize = 32;

/// Operators of a cluster. Each is a birth field of every greeting.
pub const MAX_OPERATORS: usize = 16;

/// Bytes of a node's, cluster's or operator's name: a DNS label (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 63;

/// Birth fields in a greeting.
pub const MAX_BIRTH_FIELDS: usize = 32;

/// Bytes of a birth field's name.
pub const MAX_FIELD_NAME: usize = 128;

/// Bytes of a birth field's value.
pub const MAX_FIELD_VALUE: usize = 1024;

/// Peers in one greeting.
pub const MAX_HINTS: usize = 64;

/// Bytes of the condition that a candidate waits for.
pub const MAX_WAITING_FOR: usize = 1024;

/// Bytes of a token's public id.
pub const MAX_TOKEN_ID: usize = 64;

/// Bytes of a token's description.
pub const MAX_DESCRIPTION: usize = 256;

/// Bytes of the reason with which a founder refuses a proposal.
pub const MAX_REASON: usize = 512;

/// Bytes of an encoded proposal. Those of this version have less than half of it; the rest is for
/// fields of newer versions. Two proposals and their signatures fit into [`MAX_HELLO_MESSAGE`].
pub const MAX_PROPOSAL: usize = 16 << 10;

/// Bytes of the encoded birth certificate.
pub const MAX_BIRTH_CERTIFICATE: usize = 64 << 10;

/// Bytes of an etcd URL.
pub const MAX_URL: usize = 128;

/// Bytes of a message that either side of a QUIC session decodes. Snapshots are streamed in smaller
/// pieces.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Bytes of a message from a peer without a certificate.
pub const MAX_HELLO_MESSAGE: usize = 64 << 10;
