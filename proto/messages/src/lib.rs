//! Messages of the three services: `hello` (peers without a certificate), `node` (members) and
//! `operator` (operators), and those in gossip datagrams (`gossip`). Plain data without a runtime.
//! Received messages are not validated yet.

#![allow(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

mod calls;
#[cfg(test)]
mod compat;
mod enums;

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

pub use calls::OperatorMethod;
pub use muster::gossip::v1 as gossip;
pub use muster::hello::v1 as hello;
pub use muster::node::v1 as node;
pub use muster::operator::v1 as operator;
