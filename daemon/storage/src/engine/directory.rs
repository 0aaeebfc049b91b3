//! Directory of a store: identity, lock and creation.
//!
//! `store.json` is durable before anything else exists. The engine's files are created in a
//! temporary directory and renamed. So a creation interrupted by a power cut is simply repeated,
//! and a directory with other contents is never mistaken for a store or changed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_files::PRIVATE_MODE;
use muster_types::format::{self, NewerFormat, RecordError};
use muster_types::{ClusterId, NodeId};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::high_water_mark::HighWaterMark;
use super::store::{Engine, Store};
use crate::error::{REINITIALISE, StoreError, io_error};

/// Format of the store that this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Node and cluster that a store belongs to. A store is never used for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreIdentity {
    pub node: NodeId,
    pub cluster: ClusterId,
}

/// Reason why a directory was rejected. Its contents are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{} is not a directory", path.display())]
    NotDirectory { path: PathBuf },
    #[error("{} belongs to user {found}, but musterd runs as user {wanted}", path.display())]
    WrongUser { path: PathBuf, found: u32, wanted: u32 },
    #[error(
        "{} is readable by others (mode {mode:03o}); run chmod 700 on it", path.display()
    )]
    NotPrivate { path: PathBuf, mode: u32 },
    #[error("another musterd is using the state in {}", path.display())]
    Locked { path: PathBuf },
    #[error("{} holds files but no store.json; {REINITIALISE}", path.display())]
    NoHeader { path: PathBuf },
    #[error("{} is invalid: {why}; {REINITIALISE}", path.display())]
    Invalid { path: PathBuf, why: String },
    #[error(
        "{} is gone, and with it this node's votes and acknowledged entries; {REINITIALISE}",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error("{} belongs to cluster {found}, but this node to cluster {wanted}", path.display())]
    OtherCluster { path: PathBuf, found: ClusterId, wanted: ClusterId },
    #[error("{} belongs to node {found}, but this node is {wanted}", path.display())]
    OtherNode { path: PathBuf, found: NodeId, wanted: NodeId },
    #[error("{} was created by store engine {found:?}, but this one is {wanted:?}", path.display())]
    OtherEngine { path: PathBuf, found: String, wanted: &'static str },
}

/// A node's Raft state could not be opened. An existing one is unchanged on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    engine: String,
    node: NodeId,
    cluster: ClusterId,
}

/// An open and locked store.
pub(crate) struct StoreDirectory {
    pub(super) data: PathBuf,
    pub(super) store: Arc<dyn Store>,
    pub(super) mark: HighWaterMark,
    /// Last commit known to be acknowledged.
    pub(super) acknowledged: u64,
    /// Held until the store is closed.
    pub(super) lock: File,
}

pub(crate) fn open(
    dir: &Path,
    identity: &StoreIdentity,
    engine: Engine,
) -> Result<StoreDirectory, OpenError> {
    let lock = create(dir, identity, engine)?;
    let data = dir.join("data");
    let (mark, acknowledged) = HighWaterMark::open(dir.join("mark"))?;
    let store = (engine.open)(&data)?;
    Ok(StoreDirectory { data, store, mark, acknowledged, lock })
}

/// Returns an error if [`create`] never completed in `dir`, or if files that it made are missing.
pub(crate) fn require_existing(dir: &Path) -> Result<(), DirectoryError> {
    for part in ["store.json", "mark", "data"] {
        let path = dir.join(part);
        if !path.exists() {
            return Err(DirectoryError::Missing { path });
        }
    }
    Ok(())
}

/// Creates the missing parts of an empty store; durable on return. Returns the lock.
pub(crate) fn create(
    dir: &Path,
    identity: &StoreIdentity,
    engine: Engine,
) -> Result<File, OpenError> {
    if dir.exists() {
        check_private(dir)?;
        check_header(dir, identity, engine)?;
    } else {
        muster_files::create_private_directory(dir).map_err(StoreError::from)?;
    }
    let lock = lock(dir)?;
    if !check_header(dir, identity, engine)? {
        write_header(dir, identity, engine)?;
    }
    // A process killed earlier may have created these without a sync; make them durable first.
    muster_files::sync_directory(dir).map_err(StoreError::from)?;
    muster_files::sync_parent(dir).map_err(StoreError::from)?;
    let data = dir.join("data");
    if !data.exists() {
        create_data(&data, &dir.join("mark"), engine)?;
    }
    Ok(lock)
}

fn check_private(dir: &Path) -> Result<(), OpenError> {
    let path = dir.to_owned();
    let meta = fs::metadata(dir).map_err(io_error("inspect", dir))?;
    if !meta.is_dir() {
        return Err(DirectoryError::NotDirectory { path }.into());
    }
    let wanted = rustix::process::geteuid().as_raw();
    if meta.uid() != wanted {
        return Err(DirectoryError::WrongUser { path, found: meta.uid(), wanted }.into());
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DirectoryError::NotPrivate { path, mode }.into());
    }
    Ok(())
}

/// Returns whether `dir` has a header; an error if the header does not match.
fn check_header(dir: &Path, identity: &StoreIdentity, engine: Engine) -> Result<bool, OpenError> {
    let path = dir.join("store.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            check_only_leftovers(dir)?;
            return Ok(false);
        }
        Err(e) => return Err(io_error("read", &path)(e).into()),
    };
    let parsed =
        format::parse(FORMAT, || serde_json::from_slice(&text), || serde_json::from_slice(&text));
    let header: Header = match parsed {
        Ok(header) => header,
        Err(RecordError::Newer(newer)) => return Err(DirectoryError::Newer { path, newer }.into()),
        Err(RecordError::Malformed(error)) => {
            return Err(DirectoryError::Invalid { path, why: error.to_string() }.into());
        }
    };
    if header.cluster != identity.cluster {
        let (found, wanted) = (header.cluster, identity.cluster);
        return Err(DirectoryError::OtherCluster { path, found, wanted }.into());
    }
    if header.node != identity.node {
        let (found, wanted) = (header.node, identity.node);
        return Err(DirectoryError::OtherNode { path, found, wanted }.into());
    }
    if header.engine != engine.name {
        let (found, wanted) = (header.engine, engine.name);
        return Err(DirectoryError::OtherEngine { path, found, wanted }.into());
    }
    Ok(true)
}

/// Returns an error if `dir` holds anything but leftovers of a creation interrupted before the
/// header was written.
fn check_only_leftovers(dir: &Path) -> Result<(), OpenError> {
    let header = muster_files::temporary_path(&dir.join("store.json"));
    let header_temporary = header.file_name().unwrap_or_default();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name();
        if name != "lock" && name != header_temporary {
            return Err(DirectoryError::NoHeader { path: dir.to_owned() }.into());
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_MODE)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(DirectoryError::Locked { path: dir.to_owned() }.into())
        }
        Err(e) => Err(io_error("lock", &path)(e.into()).into()),
    }
}

fn write_header(dir: &Path, identity: &StoreIdentity, engine: Engine) -> Result<(), StoreError> {
    let StoreIdentity { node, cluster } = *identity;
    let header = Header { format: FORMAT, engine: engine.name.to_owned(), node, cluster };
    let text = serde_json::to_vec_pretty(&header).expect("ids and numbers always serialize");
    Ok(muster_files::replace(&dir.join("store.json"), &text, PRIVATE_MODE)?)
}

/// Creates the engine's files in a temporary directory and renames it, so that they exist
/// completely or not at all. Creates the mark first, so that files never exist without it.
fn create_data(data: &Path, mark: &Path, engine: Engine) -> Result<(), StoreError> {
    if mark.exists() {
        let (_, acknowledged) = HighWaterMark::open(mark.to_owned())?;
        if acknowledged > 0 {
            return Err(StoreError::RolledBack { path: data.to_owned(), found: 0, acknowledged });
        }
    }
    HighWaterMark::create(mark)?;
    let temporary = muster_files::temporary_path(data);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io_error("remove", &temporary))?;
    }
    muster_files::create_private_directory(&temporary)?;
    drop((engine.open)(&temporary)?);
    muster_files::sync_tree(&temporary)?;
    Ok(muster_files::rename_into_place(&temporary, data)?)
}
