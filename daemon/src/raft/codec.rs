//! Raft's messages and commands as bytes, with gRPC's error for a peer that sent something else.

use serde::de::DeserializeOwned;
use tonic::Status;

pub use muster_state::codec::encode;

/// Decodes bytes that a member sent; an error is the sender's fault.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Status> {
    muster_state::codec::decode(bytes, what)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}
