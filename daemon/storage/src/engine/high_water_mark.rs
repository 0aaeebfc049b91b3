//! High-water mark: the number of the engine's last acknowledged commit (not Raft's committed
//! index), in a separate file.
//!
//! An engine recovers from a torn tail by dropping it. It cannot distinguish a tail torn by a power
//! cut (never acknowledged) from one that was corrupted or truncated later (acknowledged). The mark
//! can. It is written after each commit is on disk and before the commit is acknowledged, without a
//! sync, so it costs no time. A power cut may lose the latest marks: the check gets weaker, but
//! never wrong. A store that is behind its mark has lost acknowledged writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{StoreError, io_error};
use muster_files::PRIVATE_MODE;

/// Size of a slot. The two slots lie in separate sectors and are written in turn. A sector is
/// written completely or not at all, so a slot that does not match its checksum is corrupt.
const SLOT: usize = 512;

const LEN: usize = 12;

#[derive(Debug)]
pub(super) struct HighWaterMark {
    file: File,
    path: PathBuf,
}

impl HighWaterMark {
    /// Creates the mark of a store without commits.
    pub(super) fn create(path: &Path) -> Result<(), StoreError> {
        let mut slots = vec![0; 2 * SLOT];
        slots[..LEN].copy_from_slice(&slot(0));
        slots[SLOT..SLOT + LEN].copy_from_slice(&slot(0));
        Ok(muster_files::replace(path, &slots, PRIVATE_MODE)?)
    }

    /// Opens the mark at `path` and reads it.
    pub(super) fn open(path: PathBuf) -> Result<(Self, u64), StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let mark = Self { file, path };
        let last = mark.read()?;
        Ok((mark, last))
    }

    pub(super) fn set(&self, commit: u64) -> Result<(), StoreError> {
        let at = if commit.is_multiple_of(2) { 0 } else { SLOT as u64 };
        self.file.write_all_at(&slot(commit), at).map_err(io_error("write", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(io_error("sync", &self.path))
    }

    fn read(&self) -> Result<u64, StoreError> {
        let corrupt =
            |why: &str| StoreError::Corrupt { path: self.path.clone(), why: why.to_owned() };
        let mut slots = vec![0; 2 * SLOT];
        match self.file.read_exact_at(&mut slots, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the high-water mark is truncated"));
            }
            Err(e) => return Err(io_error("read", &self.path)(e)),
        }
        let mut last = 0;
        for found in [&slots[..LEN], &slots[SLOT..SLOT + LEN]] {
            let commit = u64::from_be_bytes(found[..8].try_into().expect("eight bytes"));
            if *found != slot(commit) {
                return Err(corrupt("the high-water mark does not match its checksum"));
            }
            last = last.max(commit);
        }
        Ok(last)
    }
}

/// Encodes a commit number and its checksum.
fn slot(commit: u64) -> [u8; LEN] {
    let number = commit.to_be_bytes();
    let mut slot = [0; LEN];
    slot[..8].copy_from_slice(&number);
    slot[8..].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_mark_is_read_back_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        HighWaterMark::create(&path).unwrap();
        let (mark, none) = HighWaterMark::open(path.clone()).unwrap();
        assert_eq!(none, 0);
        for commit in 1..=5 {
            mark.set(commit).unwrap();
            assert_eq!(HighWaterMark::open(path.clone()).unwrap().1, commit);
        }
        mark.file.write_all_at(&[0xff], 3).unwrap();
        assert!(matches!(HighWaterMark::open(path.clone()), Err(StoreError::Corrupt { .. })));
        mark.file.set_len(700).unwrap();
        assert!(matches!(HighWaterMark::open(path), Err(StoreError::Corrupt { .. })));
    }
}
