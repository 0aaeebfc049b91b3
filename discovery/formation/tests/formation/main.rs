//! Formation end to end: on an in-memory network in paused time, and over QUIC.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod lab;
mod machines;
mod quic;
