//! Sessions between nodes: the QUIC endpoint with its two ALPNs, and the token handshake. Never hears
//! of births, gossip or Raft.

pub mod endpoint;
pub mod hello;
pub mod limits;
