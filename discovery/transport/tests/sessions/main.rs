//! Sessions over real sockets on loopback: between members, with a token, and under attack.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod attacks;
mod hello;
mod impostors;
mod members;

/// Any port on loopback.
const ANY: &str = "127.0.0.1:0";
