//! Client of the operator API. Any node of the cluster can answer.
//!
//! The first contact is over QUIC: it proves the shared token, and learns and pins the cluster's
//! trust anchor. Every call after that is gRPC over mutual TLS. Does not know the commands.

mod api;
mod bootstrap;
mod classify;
mod endpoint;
mod error;
mod requests;
mod session;

pub(crate) use self::api::{Api, CALL_TIMEOUT};
pub(crate) use self::endpoint::parse as parse_endpoint;
#[cfg(test)]
pub(crate) use self::error::FailureKind;
pub(crate) use self::error::{Attempt, CallError, CallKind, UnformedNode};
