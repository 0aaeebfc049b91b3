//! Encoding of log entries as records: parts that fit the engine's limit. Reads and writes no store.

use std::ops::Range;

use muster_types::format::NewerFormat;
use openraft::{Entry, RaftTypeConfig};

use crate::codec::{DecodeError, pack, unpack};
use crate::engine::{Change, KeyValue, MAX_VALUE, Table};

/// Largest log entry, in bytes of MessagePack. A longer command must be rejected before it is
/// proposed: the log's failure to store it stops the node.
pub const MAX_ENTRY: usize = 1 << 20;

/// Largest part. The envelope's checksum and the part header also count towards [`MAX_VALUE`].
const MAX_PART: usize = MAX_VALUE - 8;

/// Format of the records that this build writes, and the newest it reads. An entry that an older
/// version cannot apply has a higher one.
const FORMAT: u8 = 1;

/// An entry as records, and its encoded length in bytes.
pub(super) struct EncodedEntry {
    pub(super) changes: Vec<Change>,
    pub(super) len: usize,
}

/// Encodes `entry` as records. Key: index and part number. Value: format, number of parts, bytes.
pub(super) fn encode<C>(entry: &Entry<C>) -> Result<EncodedEntry, String>
where
    C: RaftTypeConfig,
{
    let bytes = pack(entry)?;
    if bytes.len() > MAX_ENTRY {
        return Err(format!(
            "log entry {} has {} bytes, more than the limit of {MAX_ENTRY}",
            entry.log_id,
            bytes.len()
        ));
    }
    let parts = bytes.len().div_ceil(MAX_PART);
    let count = u16::try_from(parts).expect("MAX_ENTRY has fewer parts").to_be_bytes();
    let changes = bytes.chunks(MAX_PART).zip(0u16..).map(|(part, number)| Change::Put {
        table: Table::Log,
        key: key(entry.log_id.index, number),
        value: [&[FORMAT], &count[..], part].concat(),
    });
    Ok(EncodedEntry { changes: changes.collect(), len: bytes.len() })
}

/// Decodes the entries in `records`, which must have no gaps, each with its length in bytes.
pub(super) fn decode<C>(records: &[KeyValue]) -> Result<Vec<(Entry<C>, usize)>, DecodeError>
where
    C: RaftTypeConfig,
{
    let mut entries: Vec<(Entry<C>, usize)> = Vec::new();
    let mut rest = records;
    while let Some(((first, value), _)) = rest.split_first() {
        let (index, _) = parse_key(first)?;
        let (count, _) = parse_part(index, value)?;
        let (parts, after) = rest
            .split_at_checked(usize::from(count))
            .ok_or_else(|| format!("log entry {index} lacks its last part"))?;
        let mut bytes = Vec::new();
        for ((key, value), number) in parts.iter().zip(0u16..) {
            if parse_key(key)? != (index, number) || parse_part(index, value)?.0 != count {
                return Err(format!("log entry {index} lacks part {number}").into());
            }
            bytes.extend_from_slice(parse_part(index, value)?.1);
        }
        let entry: Entry<C> =
            unpack(&bytes).map_err(|e| format!("cannot decode log entry {index}: {e}"))?;
        if entry.log_id.index != index {
            let found = entry.log_id.index;
            return Err(format!("log entry {found} is stored at index {index}").into());
        }
        if let Some((last, _)) = entries.last()
            && last.log_id.index + 1 != index
        {
            return Err(format!("the log has a gap before entry {index}").into());
        }
        entries.push((entry, bytes.len()));
        rest = after;
    }
    Ok(entries)
}

/// Key range of all parts of the entries in `range`.
pub(super) fn keys(range: &Range<u64>) -> Range<Vec<u8>> {
    key(range.start, 0)..key(range.end, 0)
}

fn key(index: u64, part: u16) -> Vec<u8> {
    [&index.to_be_bytes()[..], &part.to_be_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Result<(u64, u16), String> {
    let wrong = || format!("the log has a record with the invalid key {}", key.escape_ascii());
    let (index, part) = key.split_at_checked(8).ok_or_else(wrong)?;
    let index = index.try_into().map_err(|_| wrong())?;
    let part = part.try_into().map_err(|_| wrong())?;
    Ok((u64::from_be_bytes(index), u16::from_be_bytes(part)))
}

fn parse_part(index: u64, value: &[u8]) -> Result<(u16, &[u8]), DecodeError> {
    match value {
        [FORMAT, high, low, part @ ..] if (*high, *low) != (0, 0) => {
            Ok((u16::from_be_bytes([*high, *low]), part))
        }
        [format, ..] if let Err(newer) = NewerFormat::check(*format, FORMAT) => {
            Err(DecodeError::Newer { what: format!("log entry {index}"), newer })
        }
        _ => Err(format!("log entry {index} has an invalid header").into()),
    }
}
