//! Snapshots: etcd's database as a stream, with a check that a copy is complete.
//!
//! etcd sends the database and then its SHA-256 (32 bytes), and a snapshot file holds both. The
//! database is a whole number of 512-byte sectors. By this `etcdctl` distinguishes a snapshot with
//! a hash from a database file without one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, unfold};
use ring::digest::{Context, SHA256};
use tokio::time::timeout;

use super::error::CallError;
use super::member::Member;
use muster_files::{PRIVATE, WriteError};

/// Length of the trailing hash, in bytes.
const HASH: usize = 32;

/// Size unit of a database, in bytes.
const SECTOR: u64 = 512;

/// Timeout for the next chunk of a stream.
const NEXT_PIECE: Duration = Duration::from_secs(30);

/// SHA-256 of a snapshot's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; HASH]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Digest {
    type Err = ();

    /// Parses 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| ())?;
        bytes.try_into().map(Self).map_err(|_| ())
    }
}

/// Size and digest of a verified snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Size of the file in bytes: database and hash.
    pub size: u64,
    pub digest: Digest,
}

/// Reason why a stream of bytes is no valid snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("{0} bytes is no valid length: truncated, or no etcd snapshot")]
    Length(u64),
    #[error("corrupt: its hash is {said}, but the database has {found}")]
    Hash { said: Digest, found: Digest },
}

/// Incremental verification of a snapshot stream.
pub struct Check {
    context: Context,
    /// The last bytes seen: the hash, if nothing follows.
    tail: Vec<u8>,
    size: u64,
}

impl Default for Check {
    fn default() -> Self {
        Self { context: Context::new(&SHA256), tail: Vec::new(), size: 0 }
    }
}

impl Check {
    /// Adds the next chunk.
    pub fn feed(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        self.tail.extend_from_slice(piece);
        let surely_database = self.tail.len().saturating_sub(HASH);
        self.context.update(&self.tail[..surely_database]);
        self.tail.drain(..surely_database);
    }

    /// Verifies that the chunks form one complete snapshot.
    pub fn finish(self) -> Result<Verified, CheckError> {
        let whole = self.size > HASH as u64 && self.size % SECTOR == HASH as u64;
        let Ok(said) = <[u8; HASH]>::try_from(self.tail.as_slice()) else {
            return Err(CheckError::Length(self.size));
        };
        if !whole {
            return Err(CheckError::Length(self.size));
        }
        let found = self.context.finish();
        if found.as_ref() == said {
            return Ok(Verified { size: self.size, digest: Digest(said) });
        }
        let found = found.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Err(CheckError::Hash { said: Digest(said), found: Digest(found) })
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Stream of snapshot chunks, as sent by etcd.
pub type Pieces = BoxStream<'static, Result<Vec<u8>, CallError>>;

/// Starts a snapshot of one member. The reader must verify it with [`Check`].
pub async fn stream(member: &Member) -> Result<Pieces, CallError> {
    let endpoint = member.endpoint();
    let replies = member.snapshot().await?;
    let pieces = unfold(Some(replies), move |replies| async move {
        let mut replies = replies?;
        let piece = match timeout(NEXT_PIECE, replies.message()).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(reply))) => return Some((Ok(reply.blob), Some(replies))),
            Ok(Err(status)) => Err(CallError::of(endpoint, "Snapshot", &status)),
            Err(_) => Err(CallError::deadline(endpoint, "Snapshot", NEXT_PIECE)),
        };
        Some((piece, None))
    });
    Ok(pieces.boxed())
}

/// Reason why no snapshot was saved; no file is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("cannot receive the snapshot")]
    Call(#[from] CallError),
    #[error("received snapshot is invalid")]
    Check(#[from] CheckError),
    #[error("write snapshot to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot move the snapshot into place")]
    Place(#[from] WriteError),
}

/// Saves a snapshot of one member: writes a temporary file (mode 0600), verifies, syncs and renames
/// it.
pub async fn save(member: &Member, path: &Path) -> Result<Verified, SaveError> {
    let beside = muster_files::beside(path);
    let saved = receive(member, &beside).await;
    let settled = saved.and_then(|verified| {
        muster_files::settle(&beside, path)?;
        Ok(verified)
    });
    if settled.is_err() {
        std::fs::remove_file(&beside).ok();
    }
    settled
}

async fn receive(member: &Member, beside: &Path) -> Result<Verified, SaveError> {
    let failed = |source| SaveError::Write { path: beside.to_owned(), source };
    let mut pieces = stream(member).await?;
    std::fs::remove_file(beside).ok(); // from an earlier attempt
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(beside)
        .map_err(failed)?;
    let mut check = Check::default();
    while let Some(piece) = pieces.try_next().await? {
        check.feed(&piece);
        // Chunks are small and go to the page cache; only the sync below waits for the disk.
        file.write_all(&piece).map_err(failed)?;
    }
    let verified = check.finish()?;
    let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
    synced.map_err(io::Error::other).flatten().map_err(failed)?;
    Ok(verified)
}

/// Reason why a file is no valid snapshot.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("read snapshot {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("snapshot {} is invalid", path.display())]
    Check { path: PathBuf, source: CheckError },
}

/// Reads a whole snapshot file and verifies it. Blocks.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let failed = |source| VerifyError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut check = Check::default();
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => check.feed(&piece[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    check.finish().map_err(|source| VerifyError::Check { path: path.to_owned(), source })
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

    fn check(bytes: &[u8], cut: usize) -> Result<Verified, CheckError> {
        let mut check = Check::default();
        bytes.chunks(cut).for_each(|piece| check.feed(piece));
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
        let digest = Digest([0xa7; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("a7".parse::<Digest>().is_err() && "x".repeat(64).parse::<Digest>().is_err());
    }

    #[test]
    fn a_short_or_damaged_snapshot_is_refused() {
        let whole = snapshot();
        for short in [0, 1, 31, 32, 512, 1024, 1055] {
            assert!(check(&whole[..short], 100).is_err(), "{short}");
        }
        // Cut at a sector and 32 bytes: only the hash can tell.
        assert!(matches!(check(&whole[..544], 100), Err(CheckError::Hash { .. })));
        for flipped in [0, 500, 1030] {
            let mut damaged = whole.clone();
            damaged[flipped] ^= 1;
            assert!(matches!(check(&damaged, 100), Err(CheckError::Hash { .. })), "{flipped}");
        }
    }
}
