//! Encoding of Raft messages and commands: MessagePack with named fields. Unknown fields are
//! ignored and missing ones take their defaults, so that nodes of different versions understand
//! each other.

#[cfg(test)]
mod compat;
#[cfg(test)]
mod fuzz;

use muster_types::NodeId;
use openraft::{EmptyNode, SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::Status;

pub use muster_state::codec::encode;

/// The announcement of a snapshot, in front of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote<NodeId>,
    pub(crate) meta: SnapshotMeta<NodeId, EmptyNode>,
}

/// Decodes a member's message; a malformed one is an invalid argument.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Status> {
    muster_state::codec::decode(bytes, what)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}
