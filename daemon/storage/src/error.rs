//! Errors of the store. They never say how to repair it beyond re-initialising the node.

use std::io;
use std::path::{Path, PathBuf};

use muster_files::WriteError;
use muster_types::error::chain;
use muster_types::format::NewerFormat;
use openraft::AnyError;

use crate::codec::DecodeError;

/// Advice for a node whose files cannot be trusted any more (docs/guide/operations.md).
pub const REINITIALISE: &str = "this node must be re-initialised: remove it from its cluster \
    (`musterctl node remove NAME`), move its state directory away and start it again";

/// A failed read or write of the store. None of these is transient: Raft must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{what} the Raft store in {}", path.display())]
    Engine { what: &'static str, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "the Raft store is corrupted: {}: {why}; {REINITIALISE}", path.display()
    )]
    Corrupt { path: PathBuf, why: String },
    #[error("the Raft store has data of a newer version: {}: {what} was {newer}", path.display())]
    Newer { path: PathBuf, what: String, newer: NewerFormat },
    #[error(
        "snapshot {} is larger than {limit} bytes; if a newer Muster wrote it, start that version",
        path.display()
    )]
    SnapshotTooLarge { path: PathBuf, limit: usize },
    #[error(
        "the Raft store in {} has lost acknowledged writes: found commit {found}, expected commit \
         {acknowledged}; {REINITIALISE}", path.display()
    )]
    RolledBack { path: PathBuf, found: u64, acknowledged: u64 },
    #[error("value of {len} bytes exceeds the Raft store's limit of {limit}")]
    TooLong { len: usize, limit: usize },
    #[error("the Raft store stopped after an error: {0}")]
    Stopped(String),
}

/// Converts an I/O error into a [`StoreError`] that names the action and the path.
pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

/// Converts the reason why the value at `path` cannot be read.
pub(crate) fn decode_error(path: &Path, error: DecodeError) -> StoreError {
    let path = path.to_owned();
    match error {
        DecodeError::Newer { what, newer } => StoreError::Newer { path, what, newer },
        DecodeError::Malformed(why) => StoreError::Corrupt { path, why },
    }
}

/// Converts the error, with its causes in the text: openraft displays errors without causes.
pub(crate) fn to_any_error(error: &StoreError) -> AnyError {
    AnyError::error(chain(error))
}
