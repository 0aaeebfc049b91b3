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

/// Format of the single records (vote, committed and purged position) that this build writes, and
/// the newest it reads: the first byte.
const RECORD_FORMAT: u8 = 1;

/// Encodes a single record.
pub(crate) fn pack_record<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    Ok([&[RECORD_FORMAT], pack(value)?.as_slice()].concat())
}

/// Decodes a single record. `what` names it in the error.
pub(crate) fn unpack_record<T: DeserializeOwned>(
    what: &str,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let (&format, body) =
        bytes.split_first().ok_or_else(|| DecodeError::Malformed(format!("{what} is empty")))?;
    NewerFormat::check(format, RECORD_FORMAT)
        .map_err(|newer| DecodeError::Newer { what: what.to_owned(), newer })?;
    if format != RECORD_FORMAT {
        return Err(DecodeError::Malformed(format!("{what} has the invalid format {format}")));
    }
    unpack(body).map_err(|why| DecodeError::Malformed(format!("cannot decode {what}: {why}")))
}

pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|e| e.to_string())
}

pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (value, rest) = decode_prefix(bytes).map_err(|e| e.to_string())?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} trailing bytes", rest.len())) }
}
