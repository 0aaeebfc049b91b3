//! Envelope of every stored value: a checksum over key and value. A flipped byte or a value under
//! the wrong key is an error, never a wrong answer. The engines have their own checksums, but do
//! not verify them on every read.

use super::store::{MAX_VALUE, Table};
use crate::error::StoreError;

const CHECKSUM: usize = 4;

/// Returns `value` in the envelope for `key`.
pub(super) fn seal(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM + value.len());
    sealed.extend_from_slice(&checksum(table, key, value));
    sealed.extend_from_slice(value);
    sealed
}

/// Returns the value that was sealed under `key`, or the reason why it is invalid.
pub(super) fn unseal<'a>(table: Table, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], String> {
    let name = || format!("record {} of the {table:?} table", printable(key));
    let (sum, value) = sealed
        .split_at_checked(CHECKSUM)
        .ok_or_else(|| format!("{} is shorter than its checksum", name()))?;
    if sum == checksum(table, key, value) {
        Ok(value)
    } else {
        Err(format!("{} does not match its checksum", name()))
    }
}

/// Rejects values that are too long for an engine.
pub(super) fn check_length(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE {
        return Err(StoreError::TooLong { len: value.len(), limit: MAX_VALUE });
    }
    Ok(())
}

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[table as u8]);
    hash.update(&u64::try_from(key.len()).expect("usize fits u64").to_le_bytes());
    hash.update(key);
    hash.update(value);
    hash.finalize().to_le_bytes()
}

fn printable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_found() {
        let sealed = seal(Table::Meta, b"vote", b"some value");
        assert_eq!(unseal(Table::Meta, b"vote", &sealed), Ok(&b"some value"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(Table::Meta, b"vote", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_value_under_another_key_is_refused() {
        let sealed = seal(Table::Meta, b"vote", b"v");
        assert!(unseal(Table::Meta, b"purged", &sealed).is_err());
        assert!(unseal(Table::Log, b"vote", &sealed).is_err());
        assert!(unseal(Table::Meta, b"vote", &sealed[..3]).is_err());
    }
}
