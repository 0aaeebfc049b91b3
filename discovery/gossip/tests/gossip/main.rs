//! Gossip over real QUIC sessions on loopback.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod hello_sessions;
mod liveness;
