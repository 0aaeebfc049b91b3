//! The stores under test.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use muster_storage::{Change, Engine, KeyValue, SLED, Store, StoreError, Table};
use muster_types::error::chain;
use redb::{Database, ReadableDatabase, TableDefinition};

/// Muster's store.
pub const MUSTER: Engine = SLED;

/// sled with its own `flush` only.
pub const FLUSH_ONLY: Engine = Engine { name: "sled-flush-only", open: open_flush_only };

/// redb with its default durability.
pub const REDB: Engine = Engine { name: "redb", open: open_redb };

pub fn by_name(name: &str) -> Result<Engine> {
    [MUSTER, FLUSH_ONLY, REDB].into_iter().find(|e| e.name == name).context("no such engine")
}

fn failed<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl Fn(E) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Engine { what: "use", path: path.clone(), source: Box::new(source) }
}

fn key_of(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], key].concat()
}

struct FlushOnly(sled::Db, PathBuf);

/// Turns panics into errors: sled panics on some of the damage that it does to itself.
fn catch_panic<T>(dir: &Path, act: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let panicked = |_| Err(sled::Error::ReportableBug("sled panicked".to_owned()));
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(panicked).map_err(failed(dir))
}

fn open_flush_only(dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(8 << 20);
    for _ in 0..1000 {
        match catch_panic(dir, || config.open()) {
            // An instance of this process may still be closing.
            Err(e) if chain(&e).contains("could not acquire lock") => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            result => return Ok(Arc::new(FlushOnly(result?, dir.to_owned()))),
        }
    }
    Err(StoreError::Stopped(format!("{} stays locked", dir.display())))
}

impl Store for FlushOnly {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    batch.insert(key_of(*table, key), value.as_slice());
                }
                Change::Delete { table, key } => batch.remove(key_of(*table, key)),
            }
        }
        catch_panic(&self.1, || self.0.apply_batch(batch).and_then(|()| self.0.flush()))?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = catch_panic(&self.1, || self.0.get(key_of(table, key)))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        catch_panic(&self.1, || {
            self.0
                .range(key_of(table, from)..key_of(table, to))
                .map(|pair| pair.map(|(key, value)| (key[1..].to_vec(), value.to_vec())))
                .collect()
        })
    }
}

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("raft");

struct Redb(Database, PathBuf);

fn open_redb(dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let path = dir.join("raft.redb");
    let db = Database::builder().set_cache_size(8 << 20).create(&path).map_err(failed(&path))?;
    let store = Redb(db, path);
    store.commit(&[])?;
    Ok(Arc::new(store))
}

impl Redb {
    fn change(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for change in changes {
                match change {
                    Change::Put { table, key, value } => {
                        records.insert(&*key_of(*table, key), value.as_slice())?;
                    }
                    Change::Delete { table, key } => {
                        records.remove(&*key_of(*table, key))?;
                    }
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn range(&self, from: &[u8], to: Bound<&[u8]>) -> Result<Vec<KeyValue>, redb::Error> {
        let records = self.0.begin_read()?.open_table(RECORDS)?;
        let mut pairs = Vec::new();
        for pair in records.range::<&[u8]>((Bound::Included(from), to))? {
            let (key, value) = pair?;
            pairs.push((key.value()[1..].to_vec(), value.value().to_vec()));
        }
        Ok(pairs)
    }
}

impl Store for Redb {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.change(changes).map_err(failed(&self.1))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key_of(table, key);
        let found = self.range(&key, Bound::Included(&key)).map_err(failed(&self.1))?;
        Ok(found.into_iter().next().map(|(_, value)| value))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        self.range(&key_of(table, from), Bound::Excluded(&key_of(table, to)))
            .map_err(failed(&self.1))
    }
}
