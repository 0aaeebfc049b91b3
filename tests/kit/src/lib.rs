//! Helpers of the in-process integration tests of all crates. Nodes run on loopback sockets, with a
//! hello handler and a node service that echoes. No helper starts a process or needs root.
//!
//! - [`until`], [`bounded`], [`within`]: waits that name their condition when they fail;
//! - [`TestNode`], [`form_cluster`]: running nodes, and their membership;
//! - [`TestHelloHandler`], [`Echo`]: their services;
//! - [`cable::Cable`]: a UDP path that can be cut;
//! - [`ports`]: free ports;
//! - [`raw_client`]: a QUIC client with any protocol and certificate.

#![allow(clippy::unwrap_used, reason = "these are tests")]

pub mod cable;
mod echo;
mod hello_handler;
mod node;
pub mod ports;
pub mod raw_client;
mod wait;

use std::time::SystemTime;

pub use echo::Echo;
pub use hello_handler::TestHelloHandler;
pub use node::{TestNode, form_cluster, message};
pub use wait::{TIMEOUT, bounded, until, within};

/// Returns the real time, which rustls checks certificates by.
#[expect(clippy::disallowed_methods, reason = "rustls checks by the real clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
