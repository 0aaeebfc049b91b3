//! How nodes find each other and know who lives: addresses worth dialling, the QUIC endpoint, the
//! token handshake, birth, and gossip membership. Never hears of Raft.

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
