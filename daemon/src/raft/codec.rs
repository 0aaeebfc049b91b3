//! Raft's messages and commands as bytes: MessagePack with named fields, so that a newer node's
//! additional fields are ignored and its missing ones take their defaults.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

/// Encodes a value of our own types.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("our types hold nothing that MessagePack cannot")
}

/// Decodes what a member sent; anything else is its fault, said so.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Status> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Status::invalid_argument(format!("the {what} is malformed: {error}")))
}
