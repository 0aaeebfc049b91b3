//! Store on sled 0.34, with the workarounds that make it durable.
//!
//! sled's own `flush` only starts writeback (`sync_file_range`): it commits neither the length of
//! the file nor the drive's cache. So each commit is followed by `fdatasync` on a descriptor of the
//! same file, which also reports a failed writeback. sled moves large pages to `blobs/`, which it
//! never syncs. So values are short, and nothing is acknowledged if a blob exists. Both tables are
//! in one sled tree, because only a batch on one tree is atomic.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::envelope;
use super::store::{Change, Engine, KeyValue, Store, Table};
use crate::error::{StoreError, io_error};

/// The engine that Muster uses.
pub const SLED: Engine = Engine { name: "sled-0.34", open: |dir| Ok(Arc::new(Sled::open(dir)?)) };

/// Size of sled's page cache in bytes; the log cache answers most reads.
const PAGE_CACHE: u64 = 8 << 20;

/// Time limit for a dropped instance in this process to release its files.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

struct Sled {
    db: ::sled::Db,
    tree: ::sled::Tree,
    file: File,
    dir: PathBuf,
}

impl Sled {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        check_blobs(dir)?;
        remove_incomplete_snapshots(dir)?;
        let (db, tree) = catch_panic("open", dir, || {
            let db = open_when_released(dir)?;
            let tree = db.open_tree("raft")?;
            db.flush()?;
            Ok((db, tree))
        })?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(io_error("open", &path))?;
        file.sync_all().map_err(io_error("sync", &path))?;
        muster_files::sync_tree(dir)?;
        Ok(Self { db, tree, file, dir: dir.to_owned() })
    }

    fn catch_panic<T>(
        &self,
        what: &'static str,
        call: impl FnOnce() -> ::sled::Result<T>,
    ) -> Result<T, StoreError> {
        catch_panic(what, &self.dir, call)
    }
}

impl Store for Sled {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    envelope::check_length(value)?;
                    batch.insert(tree_key(*table, key), value.as_slice());
                }
                Change::Delete { table, key } => batch.remove(tree_key(*table, key)),
            }
        }
        self.catch_panic("write", || {
            self.tree.apply_batch(batch)?;
            self.db.flush()
        })?;
        check_blobs(&self.dir)?;
        self.file.sync_data().map_err(io_error("sync", &self.dir.join("db")))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.catch_panic("read", || self.tree.get(tree_key(table, key)))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        self.catch_panic("read", || {
            self.tree
                .range(tree_key(table, from)..tree_key(table, to))
                .map(|pair| pair.map(|(key, value)| (key[1..].to_vec(), value.to_vec())))
                .collect()
        })
    }
}

/// Opens sled. Waits for a dropped instance in this process, which sled's threads close a moment
/// later. No other process can have it open, since the directory is locked.
fn open_when_released(dir: &Path) -> ::sled::Result<::sled::Db> {
    let config = ::sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(PAGE_CACHE);
    let mut waited = Duration::ZERO;
    loop {
        match config.open() {
            Err(::sled::Error::Io(e)) if is_locked(&e) && waited < RELEASE_TIMEOUT => {
                std::thread::sleep(RELEASE_TIMEOUT / 1000);
                waited += RELEASE_TIMEOUT / 1000;
            }
            result => return result,
        }
    }
}

/// Recognises sled's error for a locked file: it wraps the `flock` error and keeps only its text.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn tree_key(table: Table, key: &[u8]) -> Vec<u8> {
    let table = match table {
        Table::Log => b'l',
        Table::Meta => b'm',
    };
    [&[table], key].concat()
}

/// Runs a sled call and converts panics to errors: sled panics on some damaged files.
fn catch_panic<T>(
    what: &'static str,
    dir: &Path,
    call: impl FnOnce() -> ::sled::Result<T>,
) -> Result<T, StoreError> {
    let path = dir.join("db");
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(::sled::Error::Corruption { at, .. })) => {
            Err(StoreError::Corrupt { path, why: format!("sled reports corruption at {at:?}") })
        }
        Ok(Err(::sled::Error::Io(source))) => Err(StoreError::Io { what, path, source }),
        Ok(Err(source)) => Err(StoreError::Engine { what, path, source: source.into() }),
        Err(panic) => {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(StoreError::Corrupt { path, why: format!("sled panicked: {why}") })
        }
    }
}

/// Removes index snapshots left incomplete by a power cut: sled would report the store as corrupt.
fn remove_incomplete_snapshots(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

/// Returns an error if a blob exists: a blob is a page that no commit has synced.
fn check_blobs(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("blobs");
    match fs::read_dir(&path).map(|mut blobs| blobs.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let why = "it holds a page that no commit has synced".to_owned();
            Err(StoreError::Corrupt { path, why })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("list", &path)(e)),
    }
}
