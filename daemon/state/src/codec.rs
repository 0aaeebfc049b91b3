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

/// Levels of nesting that are read. The deepest value of this version has about ten.
const MAX_DEPTH: usize = 64;

/// Encodes a value of our own types.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("MessagePack can encode all our types")
}

/// Decodes bytes that a member sent. `what` names the value in the error. Bytes after the value are
/// ignored.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, DecodeError> {
    decode_prefix(bytes).map(|(value, _)| value).map_err(|source| DecodeError { what, source })
}

/// Decodes the value at the start of `bytes`. Returns it with the bytes after it.
pub fn decode_prefix<T: DeserializeOwned>(
    bytes: &[u8],
) -> Result<(T, &[u8]), rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader)?;
    Ok((value, *reader.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    /// rmp-serde allows 1,024 levels, with which skipping a field of a later version overflowed the
    /// stack of a thread and aborted the process.
    #[test]
    fn a_field_that_nests_too_deeply_is_an_error() {
        #[derive(Debug, serde::Deserialize)]
        struct Empty {}
        let nested = |levels: usize| {
            let mut bytes = vec![0x81, 0xa1, b'x'];
            bytes.extend(std::iter::repeat_n(0x91, levels));
            bytes.push(0xc0);
            bytes
        };
        decode::<Empty>(&nested(MAX_DEPTH - 2), "value").unwrap();
        for levels in [MAX_DEPTH, 1000, 100_000] {
            decode::<Empty>(&nested(levels), "value").unwrap_err();
            decode::<Outcome>(&nested(levels), "value").unwrap_err();
        }
    }
}
