//! The directory of a store: whose it is, that nobody else is in it, and how it comes to be.
//!
//! `store.json` is durable before anything else is there, and the engine's files are made aside
//! and renamed. So a power cut while a store is made leaves one that is made anew, and a directory
//! with other contents is never taken for a store or changed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_types::{ClusterId, NodeId};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::durable::{self, make_dir, sync_dir, write_file};
use super::mark::Mark;
use super::{Engine, OpenError, Store, StoreError};
use crate::BEGIN_ANEW;

/// The format of store and snapshots that this build reads and writes.
pub const FORMAT: u32 = 1;

/// Whose Raft state this is. A store never serves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub cluster: ClusterId,
}

/// Why a directory was refused. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{} is not a directory", path.display())]
    NotDirectory { path: PathBuf },
    #[error("{} belongs to user {found}, but musterd runs as user {wanted}", path.display())]
    NotOurs { path: PathBuf, found: u32, wanted: u32 },
    #[error(
        "{} may be read by others (mode {mode:03o}); make it private with chmod 700", path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("another musterd is running with the state in {}", path.display())]
    Busy { path: PathBuf },
    #[error("{} holds files, but no store.json that says whose they are; {BEGIN_ANEW}", path.display())]
    Unmarked { path: PathBuf },
    #[error("{} cannot be understood: {why}; {BEGIN_ANEW}", path.display())]
    Garbled { path: PathBuf, why: String },
    #[error(
        "{} is gone, and with it what this node has voted and acknowledged; {BEGIN_ANEW}",
        path.display()
    )]
    Gone { path: PathBuf },
    #[error(
        "{} has format {found}, which is newer than {FORMAT}, the newest this version of Muster \
         knows; use a newer musterd", path.display()
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{} is of cluster {found}, but this node belongs to {wanted}", path.display())]
    OtherCluster { path: PathBuf, found: ClusterId, wanted: ClusterId },
    #[error("{} is of node {found}, but this node is {wanted}", path.display())]
    OtherNode { path: PathBuf, found: NodeId, wanted: NodeId },
    #[error("{} was made by the store engine {found:?}, but this is {wanted:?}", path.display())]
    OtherEngine { path: PathBuf, found: String, wanted: &'static str },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    engine: String,
    node: NodeId,
    cluster: ClusterId,
}

/// Every format, past and future, says which it is in this field.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// A store that is open and locked.
pub(super) struct Directory {
    pub(super) data: PathBuf,
    pub(super) store: Arc<dyn Store>,
    pub(super) mark: Mark,
    /// The last commit that is known to have been acknowledged.
    pub(super) marked: u64,
    /// Held until the store is closed.
    pub(super) lock: File,
}

pub(super) fn open(dir: &Path, owner: &Owner, engine: Engine) -> Result<Directory, OpenError> {
    let lock = make(dir, owner, engine)?;
    let data = dir.join("data");
    let (mark, marked) = Mark::open(dir.join("mark"))?;
    let store = (engine.open)(&data)?;
    Ok(Directory { data, store, mark, marked, lock })
}

/// Refuses a directory in which [`make`] was never through, or which has lost what that made.
pub(super) fn require(dir: &Path) -> Result<(), DirectoryError> {
    for part in ["store.json", "mark", "data"] {
        let path = dir.join(part);
        if !path.exists() {
            return Err(DirectoryError::Gone { path });
        }
    }
    Ok(())
}

/// Makes what is not there yet of an empty store, on disk when this returns; gives its lock.
pub(super) fn make(dir: &Path, owner: &Owner, engine: Engine) -> Result<File, OpenError> {
    if dir.exists() {
        check_private(dir)?;
        check_header(dir, owner, engine)?;
    } else {
        make_dir(dir)?;
    }
    let lock = lock(dir)?;
    if !check_header(dir, owner, engine)? {
        write_header(dir, owner, engine)?;
    }
    // Whoever made these may have been killed before they were on disk; what is found is acted on.
    sync_dir(dir)?;
    sync_dir(durable::parent(dir))?;
    let data = dir.join("data");
    if !data.exists() {
        make_data(&data, &dir.join("mark"), engine)?;
    }
    Ok(lock)
}

fn check_private(dir: &Path) -> Result<(), OpenError> {
    let path = dir.to_owned();
    let meta = fs::metadata(dir).map_err(durable::failed("look at", dir))?;
    if !meta.is_dir() {
        return Err(DirectoryError::NotDirectory { path }.into());
    }
    let wanted = rustix::process::geteuid().as_raw();
    if meta.uid() != wanted {
        return Err(DirectoryError::NotOurs { path, found: meta.uid(), wanted }.into());
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DirectoryError::Open { path, mode }.into());
    }
    Ok(())
}

/// Whether `dir` has a header, which then is the right one.
fn check_header(dir: &Path, owner: &Owner, engine: Engine) -> Result<bool, OpenError> {
    let path = dir.join("store.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            only_leftovers(dir)?;
            return Ok(false);
        }
        Err(e) => return Err(durable::failed("read", &path)(e).into()),
    };
    let garbled =
        |e: serde_json::Error| DirectoryError::Garbled { path: path.clone(), why: e.to_string() };
    let Version { format } = serde_json::from_slice(&text).map_err(garbled)?;
    if format > FORMAT {
        return Err(DirectoryError::Newer { path, found: format }.into());
    }
    let header: Header = serde_json::from_slice(&text).map_err(garbled)?;
    if header.cluster != owner.cluster {
        let (found, wanted) = (header.cluster, owner.cluster);
        return Err(DirectoryError::OtherCluster { path, found, wanted }.into());
    }
    if header.node != owner.node {
        let (found, wanted) = (header.node, owner.node);
        return Err(DirectoryError::OtherNode { path, found, wanted }.into());
    }
    if header.engine != engine.name {
        let (found, wanted) = (header.engine, engine.name);
        return Err(DirectoryError::OtherEngine { path, found, wanted }.into());
    }
    Ok(true)
}

/// A store without header may only be one whose making was cut short before the header.
fn only_leftovers(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(durable::failed("list", dir))? {
        let name = entry.map_err(durable::failed("list", dir))?.file_name();
        if name != "lock" && name != "store.new" {
            return Err(DirectoryError::Unmarked { path: dir.to_owned() }.into());
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
        .mode(0o600)
        .open(&path)
        .map_err(durable::failed("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(DirectoryError::Busy { path: dir.to_owned() }.into())
        }
        Err(e) => Err(durable::failed("lock", &path)(e.into()).into()),
    }
}

fn write_header(dir: &Path, owner: &Owner, engine: Engine) -> Result<(), StoreError> {
    let Owner { node, cluster } = *owner;
    let header = Header { format: FORMAT, engine: engine.name.to_owned(), node, cluster };
    let text = serde_json::to_vec_pretty(&header).expect("ids and numbers always serialize");
    write_file(&dir.join("store.json"), &[&text])
}

/// Makes the engine's files aside, so that they are there whole or not at all; the mark before
/// them, so that it is there when they are.
fn make_data(data: &Path, mark: &Path, engine: Engine) -> Result<(), StoreError> {
    if mark.exists() {
        let (_, marked) = Mark::open(mark.to_owned())?;
        if marked > 0 {
            return Err(StoreError::WentBack { path: data.to_owned(), found: 0, marked });
        }
    }
    Mark::create(mark)?;
    let aside = durable::aside(data);
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(durable::failed("remove", &aside))?;
    }
    make_dir(&aside)?;
    drop((engine.open)(&aside)?);
    durable::sync_tree(&aside)?;
    fs::rename(&aside, data).map_err(durable::failed("put in place", data))?;
    sync_dir(durable::parent(data))
}
