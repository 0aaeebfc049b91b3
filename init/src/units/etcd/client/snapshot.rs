//! Snapshots: etcd's database as a stream, with a check that a copy is complete.
//!
//! etcd sends the database and then its SHA-256 (32 bytes), and a snapshot file holds both. The
//! database is a whole number of 512-byte sectors. By this `etcdctl` distinguishes a snapshot with
//! a hash from a database file without one.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, unfold};
use ring::digest::{Context, SHA256};
use tokio::time::timeout;

use super::error::CallError;
use super::member::MemberClient;
use muster_files::{PRIVATE_MODE, PendingFile, WriteError};

/// Length of the trailing hash, in bytes.
const HASH_LENGTH: usize = 32;

/// Size unit of a database, in bytes.
const SECTOR_SIZE: u64 = 512;

/// Timeout for the next chunk of a stream.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// SHA-256 of a snapshot's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotDigest(pub [u8; HASH_LENGTH]);

impl fmt::Display for SnapshotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for SnapshotDigest {
    type Err = ();

    /// Parses 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| ())?;
        bytes.try_into().map(Self).map_err(|_| ())
    }
}

/// Size and digest of a verified snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedSnapshot {
    /// Size of the file in bytes: database and hash.
    pub size: u64,
    pub digest: SnapshotDigest,
}

/// Reason why a stream of bytes is no valid snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("{0} bytes is no valid length: truncated, or no etcd snapshot")]
    Length(u64),
    #[error("corrupt: its hash is {stated}, but the database has {found}")]
    Hash { stated: SnapshotDigest, found: SnapshotDigest },
}

/// Incremental verification of a snapshot stream.
pub struct SnapshotVerifier {
    context: Context,
    /// The last bytes seen: the hash, if nothing follows.
    tail: Vec<u8>,
    size: u64,
}

impl Default for SnapshotVerifier {
    fn default() -> Self {
        Self { context: Context::new(&SHA256), tail: Vec::new(), size: 0 }
    }
}

impl SnapshotVerifier {
    /// Adds the next chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.size += chunk.len() as u64;
        self.tail.extend_from_slice(chunk);
        let surely_database = self.tail.len().saturating_sub(HASH_LENGTH);
        self.context.update(&self.tail[..surely_database]);
        self.tail.drain(..surely_database);
    }

    /// Verifies that the chunks form one complete snapshot.
    pub fn finish(self) -> Result<VerifiedSnapshot, SnapshotError> {
        let whole = self.size > HASH_LENGTH as u64 && self.size % SECTOR_SIZE == HASH_LENGTH as u64;
        let Ok(stated) = <[u8; HASH_LENGTH]>::try_from(self.tail.as_slice()) else {
            return Err(SnapshotError::Length(self.size));
        };
        if !whole {
            return Err(SnapshotError::Length(self.size));
        }
        let found = self.context.finish();
        if found.as_ref() == stated {
            return Ok(VerifiedSnapshot { size: self.size, digest: SnapshotDigest(stated) });
        }
        let found = found.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Err(SnapshotError::Hash { stated: SnapshotDigest(stated), found: SnapshotDigest(found) })
    }
}

impl fmt::Debug for SnapshotVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotVerifier").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Stream of snapshot chunks, as sent by etcd.
pub type SnapshotStream = BoxStream<'static, Result<Vec<u8>, CallError>>;

/// Starts a snapshot of one member. The reader must verify it with [`SnapshotVerifier`].
pub async fn stream(member: &MemberClient) -> Result<SnapshotStream, CallError> {
    let endpoint = member.endpoint();
    let replies = member.snapshot().await?;
    let chunks = unfold(Some(replies), move |replies| async move {
        let mut replies = replies?;
        let chunk = match timeout(CHUNK_TIMEOUT, replies.message()).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(reply))) => return Some((Ok(reply.blob), Some(replies))),
            Ok(Err(status)) => Err(CallError::from_status(endpoint, "Snapshot", &status)),
            Err(_) => Err(CallError::deadline(endpoint, "Snapshot", CHUNK_TIMEOUT)),
        };
        Some((chunk, None))
    });
    Ok(chunks.boxed())
}

/// Reason why no snapshot was saved; no file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("cannot receive the snapshot")]
    Call(#[from] CallError),
    #[error("received snapshot is invalid")]
    Invalid(#[from] SnapshotError),
    #[error("cannot store the snapshot")]
    Write(#[from] WriteError),
}

/// Saves a snapshot of one member: writes a temporary file (mode 0600), verifies, syncs and renames
/// it.
pub async fn save(member: &MemberClient, path: &Path) -> Result<VerifiedSnapshot, SaveError> {
    let mut chunks = stream(member).await?;
    let mut file = PendingFile::create(path, PRIVATE_MODE)?;
    let mut check = SnapshotVerifier::default();
    while let Some(chunk) = chunks.try_next().await? {
        check.update(&chunk);
        // Chunks are small and go to the page cache; only the commit waits for the disk.
        file.write(&chunk)?;
    }
    let verified = check.finish()?;
    let committed = tokio::task::spawn_blocking(move || file.commit()).await;
    committed.expect("committing does not panic")?;
    Ok(verified)
}

/// Reason why a file is no valid snapshot.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read snapshot {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("snapshot {} is invalid", path.display())]
    Invalid { path: PathBuf, source: SnapshotError },
}

/// Reads a whole snapshot file and verifies it. Blocks.
pub fn verify(path: &Path) -> Result<VerifiedSnapshot, VerifyError> {
    let failed = |source| VerifyError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut check = SnapshotVerifier::default();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => check.update(&chunk[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    check.finish().map_err(|source| VerifyError::Invalid { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..1024u32).map(|n| n.to_le_bytes()[0]).collect();
        let hash = ring::digest::digest(&SHA256, &bytes);
        bytes.extend_from_slice(hash.as_ref());
        bytes
    }

    fn check(bytes: &[u8], cut: usize) -> Result<VerifiedSnapshot, SnapshotError> {
        let mut check = SnapshotVerifier::default();
        bytes.chunks(cut).for_each(|chunk| check.update(chunk));
        check.finish()
    }

    #[test]
    fn a_whole_snapshot_is_accepted_however_it_is_cut() {
        for cut in [1, 7, 31, 32, 33, 512, 4096] {
            assert_eq!(check(&snapshot(), cut).unwrap().size, 1056, "{cut}");
        }
    }

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = SnapshotDigest([0xa7; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(
            "a7".parse::<SnapshotDigest>().is_err()
                && "x".repeat(64).parse::<SnapshotDigest>().is_err()
        );
    }

    #[test]
    fn a_short_or_damaged_snapshot_is_refused() {
        let whole = snapshot();
        for short in [0, 1, 31, 32, 512, 1024, 1055] {
            assert!(check(&whole[..short], 100).is_err(), "{short}");
        }
        // Cut at a sector and 32 bytes: only the hash shows it.
        assert!(matches!(check(&whole[..544], 100), Err(SnapshotError::Hash { .. })));
        for flipped in [0, 500, 1030] {
            let mut damaged = whole.clone();
            damaged[flipped] ^= 1;
            assert!(matches!(check(&damaged, 100), Err(SnapshotError::Hash { .. })), "{flipped}");
        }
    }
}
