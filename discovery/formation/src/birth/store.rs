//! The file with a node's promises: one record in MessagePack with named fields, with a format
//! number and a checksum. It is replaced atomically (temporary file, fsync, rename, fsync of the
//! directory).
//!
//! An unreadable file is an error that stops the node. It never counts as a node without promises:
//! such a node could sign twice in one epoch, which splits a birth.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use muster_types::NodeId;
use muster_types::format::NewerFormat;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::certificate::CertificateError;
use super::record::{BirthRecord, Commitment, Decision};
use muster_files::{PRIVATE_MODE, replace};

/// File name in the state directory.
pub const FILE: &str = "birth";

/// First bytes of a record file. The format follows in one byte, then the record.
const MAGIC: &[u8; 7] = b"MBIRTH\0";

/// The format that this version writes, and the newest that it reads. A new field does not change
/// it.
const FORMAT: u8 = 1;

/// Far above the largest record: two proposals of `MAX_PROPOSAL` bytes and their signatures.
const MAX_BYTES: u64 = 256 << 10;

/// Levels of nested values in a record, unknown ones included; the deepest of this version has a
/// dozen. The reader recurses, and its own limit of 1,024 levels overflows a thread's stack.
const MAX_DEPTH: usize = 64;

/// Bytes of the SHA-256 at the end of the file, over everything before it, in every format.
const CHECKSUM: usize = 32;

/// Failures to read or write the record. Each stops the node.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("birth record {} is missing, but this node has an identity", .0.display())]
    Missing(PathBuf),
    #[error("birth record {} belongs to another node ({})", path.display(), found.short())]
    WrongNode { path: PathBuf, found: NodeId },
    #[error("birth record {} is corrupt ({why})", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("cannot read birth record {}", path.display())]
    Newer { path: PathBuf, source: NewerFormat },
    #[error(
        "birth record {} is larger than {MAX_BYTES} bytes; if a newer Muster wrote it, start that \
         version",
        path.display()
    )]
    TooLarge { path: PathBuf },
    #[error("certificate in birth record {} is invalid", path.display())]
    Certificate { path: PathBuf, source: CertificateError },
    #[error("cannot {what} birth record {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl StoreError {
    /// True if the record is lost for good, so that this node needs a new identity. An older copy
    /// of the file does not help: the node could promise again what it has promised since.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Missing(_)
            | Self::WrongNode { .. }
            | Self::Corrupt { .. }
            | Self::Certificate { .. } => true,
            Self::Newer { .. } | Self::TooLarge { .. } | Self::Io { .. } => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Contents {
    node: NodeId,
    record: BirthRecord,
}

/// Handle to the record file of one node. The only writer; the daemon locks the state directory.
#[derive(Debug, Clone)]
pub struct PromiseStore {
    path: PathBuf,
    node: NodeId,
}

impl PromiseStore {
    /// Creates the record of a new node. Call it before the identity is saved: then an identity
    /// without a record means a lost record, not a new node.
    ///
    /// # Errors
    /// When the directory holds the record of a node that has promised anything, or on I/O.
    pub fn create(directory: &Path, node: NodeId) -> Result<Self, StoreError> {
        let store = Self { path: directory.join(FILE), node };
        match store.contents() {
            Err(StoreError::Missing(_)) => {}
            Ok(Contents { record, .. }) if record == BirthRecord::NEW => {}
            Ok(Contents { node, .. }) => {
                return Err(StoreError::WrongNode { path: store.path, found: node });
            }
            Err(error) => return Err(error),
        }
        store.write(&BirthRecord::NEW)?;
        Ok(store)
    }

    /// Opens the record of an existing node.
    ///
    /// # Errors
    /// When it is missing, belongs to another node or is corrupt.
    pub fn open(directory: &Path, node: NodeId) -> Result<(Self, BirthRecord), StoreError> {
        let store = Self { path: directory.join(FILE), node };
        let record = store.read()?;
        Ok((store, record))
    }

    /// The record as it is on disk.
    pub fn read(&self) -> Result<BirthRecord, StoreError> {
        let Contents { node, record } = self.contents()?;
        if node != self.node {
            return Err(StoreError::WrongNode { path: self.path.clone(), found: node });
        }
        let certificate = match &record.commitment {
            Commitment::Born(certificate) => Some(certificate),
            Commitment::Promised(promise) => match promise.vote.as_ref().map(|vote| &vote.decision)
            {
                Some(Decision::Born(certificate)) => Some(certificate),
                Some(Decision::Abandoned) | None => None,
            },
            Commitment::None | Commitment::Joined(_) => None,
        };
        if let Some(certificate) = certificate {
            let path = || self.path.clone();
            certificate
                .verify()
                .map_err(|source| StoreError::Certificate { path: path(), source })?;
        }
        Ok(record)
    }

    /// Makes the record durable. On success a power cut cannot lose it; on failure either record
    /// may be on disk.
    pub fn write(&self, record: &BirthRecord) -> Result<(), StoreError> {
        replace(&self.path, &self.encode(record), PRIVATE_MODE)
            .map_err(|error| self.io("write", error.into()))
    }

    /// Encodes the file for `record`.
    pub(crate) fn encode(&self, record: &BirthRecord) -> Vec<u8> {
        let contents = Contents { node: self.node, record: record.clone() };
        seal(FORMAT, &rmp_serde::to_vec_named(&contents).expect("a record can be encoded"))
    }

    fn contents(&self) -> Result<Contents, StoreError> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(self.path.clone()));
            }
            opened => opened.map_err(|source| self.io("open", source))?,
        };
        let mut bytes = Vec::new();
        let limited = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        limited.map_err(|source| self.io("read", source))?;
        self.parse(&bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Contents, StoreError> {
        let corrupt =
            |why: &str| StoreError::Corrupt { path: self.path.clone(), why: why.to_owned() };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(StoreError::TooLarge { path: self.path.clone() });
        }
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Err(corrupt("too short"));
        };
        let Some([format, payload @ ..]) = body.strip_prefix(MAGIC) else {
            return Err(corrupt("too short, or wrong magic bytes"));
        };
        // Before the format: a damaged number must not count as a newer one.
        if digest(&SHA256, body).as_ref() != checksum {
            return Err(corrupt("checksum mismatch"));
        }
        NewerFormat::check(*format, FORMAT)
            .map_err(|source| StoreError::Newer { path: self.path.clone(), source })?;
        if *format != FORMAT {
            return Err(corrupt(&format!("no format has the number {format}")));
        }
        let mut reader = rmp_serde::Deserializer::new(payload);
        reader.set_max_depth(MAX_DEPTH);
        let contents =
            Contents::deserialize(&mut reader).map_err(|error| corrupt(&error.to_string()))?;
        if reader.get_ref().is_empty() { Ok(contents) } else { Err(corrupt("trailing data")) }
    }

    fn io(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { what, path: self.path.clone(), source }
    }
}

/// Returns the record file with this content: adds the magic bytes, the format and the checksum.
pub(super) fn seal(format: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &[format], payload].concat();
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(checksum.as_ref());
    bytes
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::birth::record::{Ballot, Promise};
    use crate::birth::testing::{born, founders, proposal};

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn promised() -> BirthRecord {
        let proposal = Arc::new(proposal(&founders(3)));
        let ballot = Ballot { round: 0, by: proposal.proposer() };
        BirthRecord {
            epoch: 4,
            commitment: Commitment::Promised(Promise { proposal, ballot, vote: None }),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(dir.path(), node(1)).unwrap();
        assert_eq!(store.read().unwrap(), BirthRecord::NEW);
        let born = BirthRecord { epoch: 7, commitment: Commitment::Born(Arc::new(born(3))) };
        for record in [promised(), born, BirthRecord { epoch: 9, commitment: Commitment::None }] {
            store.write(&record).unwrap();
            assert_eq!(PromiseStore::open(dir.path(), node(1)).unwrap().1, record);
        }
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_file_is_never_taken_for_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        PromiseStore::create(dir.path(), node(1)).unwrap();
        fs::remove_file(dir.path().join(FILE)).unwrap();
        let error = PromiseStore::open(dir.path(), node(1)).unwrap_err();
        assert!(matches!(error, StoreError::Missing(_)), "{error}");
    }

    #[test]
    fn another_nodes_promise_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(dir.path(), node(1)).unwrap();
        // Crashed before its identity was saved: the next identity replaces the record.
        PromiseStore::create(dir.path(), node(2)).unwrap();
        assert!(matches!(store.read().unwrap_err(), StoreError::WrongNode { .. }));
        store.write(&promised()).unwrap();
        assert!(matches!(
            PromiseStore::create(dir.path(), node(3)).unwrap_err(),
            StoreError::WrongNode { .. }
        ));
    }

    #[test]
    fn every_torn_or_flipped_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(dir.path(), node(1)).unwrap();
        let record = promised();
        store.write(&record).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(store.read().is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let error = store.read().unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at} flipped: {error}");
        }
        fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
        assert!(store.read().is_err());
        let payload = &whole[MAGIC.len() + 1..whole.len() - CHECKSUM];
        fs::write(&path, seal(FORMAT, payload)).unwrap();
        assert_eq!(store.read().unwrap(), record);
        for (format, payload) in [(FORMAT, [payload, b"x"].concat()), (0, payload.to_vec())] {
            fs::write(&path, seal(format, &payload)).unwrap();
            assert!(matches!(store.read().unwrap_err(), StoreError::Corrupt { .. }));
        }
    }

    #[test]
    fn a_newer_format_is_named_as_such_and_is_not_damage() {
        let dir = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(dir.path(), node(1)).unwrap();
        fs::write(dir.path().join(FILE), seal(FORMAT + 1, b"\xc1 unreadable here")).unwrap();
        let error = store.read().unwrap_err();
        assert!(!error.is_permanent());
        let newer = NewerFormat { found: 2, supported: 1 };
        assert!(matches!(&error, StoreError::Newer { source, .. } if *source == newer), "{error}");
        assert!(PromiseStore::create(dir.path(), node(1)).is_err(), "it is not overwritten");
    }

    #[test]
    fn a_certificate_that_was_tampered_with_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(dir.path(), node(1)).unwrap();
        let whole = born(3);
        let mut signatures = whole.signatures().clone();
        signatures.pop_first();
        let lacking = crate::birth::Certificate::new(Arc::clone(whole.proposal()), signatures);
        store
            .write(&BirthRecord { epoch: 0, commitment: Commitment::Born(Arc::new(lacking)) })
            .unwrap();
        assert!(matches!(store.read().unwrap_err(), StoreError::Certificate { .. }));
    }
}
