//! Format of a snapshot file: magic, format number, lengths, header, body, and a SHA-256 checksum of
//! all. Every format has the checksum at its end.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use muster_files::PRIVATE_MODE;
use muster_types::format::NewerFormat;
use ring::digest::{SHA256, digest};

use crate::error::{StoreError, io_error};

/// Largest snapshot read or accepted from a peer, in bytes.
pub const MAX_SNAPSHOT: usize = 256 << 20;

/// Largest header (the membership), in bytes.
const MAX_HEADER: usize = 1 << 20;

const MAGIC: &[u8; 7] = b"MSTRSNP";
/// Format of the snapshots that this build writes, and the newest it reads.
const FORMAT: u8 = 1;
const FIXED_LENGTH: usize = MAGIC.len() + 1 + 4 + 8;
const CHECKSUM_LENGTH: usize = 32;
/// Snapshot data: the state machine as MessagePack, as openraft passes it to the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotBody(pub Bytes);

/// Contents of a snapshot file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

/// Writes the file durably.
pub(super) fn write(path: &Path, header: &[u8], body: &[u8]) -> Result<(), StoreError> {
    let header_len = u32::try_from(header.len()).expect("a membership is not 4 GiB");
    let body_len = u64::try_from(body.len()).expect("usize fits u64");
    let mut fixed = MAGIC.to_vec();
    fixed.push(FORMAT);
    fixed.extend_from_slice(&header_len.to_be_bytes());
    fixed.extend_from_slice(&body_len.to_be_bytes());
    let sum = checksum(&[&fixed, header, body]);
    let parts = [&fixed, header, body, &sum];
    Ok(muster_files::replace_with_parts(path, &parts, PRIVATE_MODE)?)
}

/// Reads and verifies the file.
pub(super) fn read(path: &Path) -> Result<SnapshotFile, StoreError> {
    let corrupt = |why: &str| StoreError::Corrupt { path: path.to_owned(), why: why.to_owned() };
    let length = fs::metadata(path).map_err(io_error("inspect", path))?.len();
    let limit = MAX_SNAPSHOT + MAX_HEADER;
    if length > limit as u64 {
        return Err(StoreError::SnapshotTooLarge { path: path.to_owned(), limit });
    }
    let bytes = Bytes::from(fs::read(path).map_err(io_error("read", path))?);
    if bytes.len() < FIXED_LENGTH + CHECKSUM_LENGTH || bytes[..MAGIC.len()] != MAGIC[..] {
        return Err(corrupt("truncated, or not a snapshot"));
    }
    let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM_LENGTH);
    if sum != checksum(&[content]) {
        return Err(corrupt("checksum mismatch"));
    }
    // After the checksum: a damaged number is not a newer version.
    if let Err(newer) = NewerFormat::check(content[MAGIC.len()], FORMAT) {
        let what = "the snapshot".to_owned();
        return Err(StoreError::Newer { path: path.to_owned(), what, newer });
    }
    let header_len = u32::from_be_bytes(content[8..12].try_into().expect("four bytes")) as usize;
    let body_len = u64::from_be_bytes(content[12..20].try_into().expect("eight bytes"));
    let variable = content.len() - FIXED_LENGTH;
    if variable.checked_sub(header_len).is_none_or(|rest| rest as u64 != body_len) {
        return Err(corrupt("inconsistent lengths"));
    }
    let header = bytes.slice(FIXED_LENGTH..FIXED_LENGTH + header_len);
    let body = bytes.slice(FIXED_LENGTH + header_len..FIXED_LENGTH + variable);
    Ok(SnapshotFile { header, body })
}

fn checksum(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// Snapshot id that differs whenever the contents differ.
pub(crate) fn snapshot_id(index: u64, body: &[u8]) -> String {
    let mut name = format!("{index}-");
    for byte in &digest(&SHA256, body).as_ref()[..8] {
        write!(name, "{byte:02x}").expect("a string takes text");
    }
    name
}
