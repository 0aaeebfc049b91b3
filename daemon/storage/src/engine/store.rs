//! The interface of a storage engine: two ordered maps of bytes that survive a power cut. Knows
//! neither Raft nor the format of a value.

use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;

/// Largest value given to an engine, in bytes; longer entries are split into parts.
///
/// sled moves a page above 128 KiB to a separate file, which it never syncs. A page holds up to 20
/// values (17 before it is split, or 16 and 3 when it is merged).
pub const MAX_VALUE: usize = 4 << 10;

/// One of the two ordered maps of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Log entries by index.
    Log,
    /// Vote, committed and purged log ids, and the number of the last commit.
    Meta,
}

/// One change to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put { table: Table, key: Vec<u8>, value: Vec<u8> },
    Delete { table: Table, key: Vec<u8> },
}

/// Two ordered maps of bytes that survive a power cut.
pub trait Store: Send + Sync + 'static {
    /// Applies all of `changes`, in order, or none. On return they are on disk. After an error the
    /// contents of the disk are unknown: the store must be reopened before it is written again.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Returns the value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns all pairs from `from` (inclusive) to `to` (exclusive), in key order.
    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError>;
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A storage engine. Muster uses [`SLED`](super::SLED); the power-cut test also checks others.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// Name recorded in `store.json`.
    pub name: &'static str,
    /// Opens the store in this existing directory; creates it if the directory is empty.
    pub open: fn(&Path) -> Result<Arc<dyn Store>, StoreError>,
}
