//! Commands and reports as bytes: MessagePack with named fields, so that a newer node's additional
//! fields are ignored and missing ones take their defaults.

#[cfg(test)]
mod fuzz;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not MessagePack of the expected type.
#[derive(Debug, thiserror::Error)]
#[error("malformed {what}: {source}")]
pub struct DecodeError {
    /// The kind of value that was expected, for the message.
    what: &'static str,
    #[source]
    source: rmp_serde::decode::Error,
}

/// Encodes a value of our own types.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("MessagePack can encode all our types")
}

/// Decodes bytes that a member sent. `what` names the value in the error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes).map_err(|source| DecodeError { what, source })
}
