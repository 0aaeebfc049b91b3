//! Encoding of stored values: MessagePack with named fields, so that the format can evolve.

use muster_state::codec::decode_prefix;
use muster_types::format::NewerFormat;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reasons why stored bytes are not a value that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{what} was {newer}")]
    Newer { what: String, newer: NewerFormat },
    #[error("{0}")]
    Malformed(String),
}

impl From<String> for DecodeError {
    fn from(why: String) -> Self {
        Self::Malformed(why)
    }
}

pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|e| e.to_string())
}

pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (value, rest) = decode_prefix(bytes).map_err(|e| e.to_string())?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} trailing bytes", rest.len())) }
}
