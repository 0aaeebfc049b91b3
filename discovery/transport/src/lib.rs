//! Sessions between nodes: the QUIC endpoint with its two ALPNs, and the token handshake. Does not
//! depend on births, gossip or Raft.

pub mod endpoint;
pub mod hello;
pub mod limits;
