//! Peer discovery and liveness: hints for addresses to dial, the QUIC endpoint, the token
//! handshake, birth (bootstrap) and gossip membership. It knows nothing of Raft.

pub mod birth;
pub mod candidates;
pub mod endpoint;
mod files;
mod foreign;
pub mod formation;
#[cfg(test)]
mod fuzz;
pub mod gossip;
pub mod hello;
