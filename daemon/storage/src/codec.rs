//! Encoding of stored values: MessagePack with named fields, so that the format can evolve.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|e| e.to_string())
}

pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut input = bytes;
    let value = rmp_serde::from_read(&mut input).map_err(|e| e.to_string())?;
    if input.is_empty() { Ok(value) } else { Err(format!("{} trailing bytes", input.len())) }
}
