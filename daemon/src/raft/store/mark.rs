//! The number of the last acknowledged commit, in a file of its own.
//!
//! An engine recovers from a torn tail by forgetting it, and cannot tell a tail that was torn by a
//! power cut (never acknowledged) from one that rotted or was cut off (acknowledged). The mark can:
//! it is written after each commit is on disk and before it is acknowledged, and not synced, so it
//! costs no time. A power cut may lose the latest marks, which only makes the check weaker, never
//! wrong. A store that is behind its mark has lost acknowledged writes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use super::StoreError;
use super::durable::failed;

/// Two slots in sectors of their own, written in turn: one is whole whatever happens to the other.
const SLOT: u64 = 512;

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens the mark at `path`, making it if there is none, and reads it (0: none was set).
    pub(super) fn open(path: PathBuf) -> Result<(Self, u64), StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mark = Self { file, path };
        let last = mark.read()?;
        Ok((mark, last))
    }

    pub(super) fn set(&self, commit: u64) -> Result<(), StoreError> {
        let mut slot = [0; 12];
        slot[..8].copy_from_slice(&commit.to_be_bytes());
        slot[8..].copy_from_slice(&crc32fast::hash(&commit.to_be_bytes()).to_be_bytes());
        self.file.write_all_at(&slot, commit % 2 * SLOT).map_err(failed("write", &self.path))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(failed("sync", &self.path))
    }

    fn read(&self) -> Result<u64, StoreError> {
        let mut last = 0;
        for at in [0, SLOT] {
            let mut slot = [0; 12];
            let read = self.file.read_at(&mut slot, at).map_err(failed("read", &self.path))?;
            if read == 0 || slot == [0; 12] {
                continue;
            }
            let (commit, sum) = slot.split_at(8);
            if crc32fast::hash(commit).to_be_bytes() != sum {
                let why = "the mark of the last commit does not match its checksum".to_owned();
                return Err(StoreError::Corrupt { path: self.path.clone(), why });
            }
            last = last.max(u64::from_be_bytes(commit.try_into().expect("split at 8")));
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_mark_is_read_back_and_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mark, none) = Mark::open(path.clone()).unwrap();
        assert_eq!(none, 0);
        for commit in 1..=5 {
            mark.set(commit).unwrap();
            assert_eq!(Mark::open(path.clone()).unwrap().1, commit);
        }
        mark.file.write_all_at(&[0xff], 3).unwrap();
        let error = Mark::open(path).unwrap_err().to_string();
        assert!(error.contains("mark"), "{error}");
    }
}
