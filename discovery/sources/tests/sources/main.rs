//! All sources together, with a real DNS server on loopback.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod dns_server;
mod hints;
