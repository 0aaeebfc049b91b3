//! The single writer: a thread that orders all changes. Requests that arrive during a commit share
//! the next one. After the first error nothing more is written, since the contents of the disk are
//! unknown.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::directory::StoreDirectory;
use super::envelope;
use super::high_water_mark::HighWaterMark;
use super::stall::DiskStall;
use super::store::{Change, KeyValue, Store, Table};
use crate::codec::DecodeError;
use crate::error::{StoreError, decode_error, io_error};
use muster_types::error::chain;

/// Capacity of the request queue; further callers wait for space.
const QUEUE_CAPACITY: usize = 256;

/// Limit for the values of one commit, in bytes.
const MAX_COMMIT_BYTES: usize = 4 << 20;

/// Longest delay of a change that has no waiting caller.
const LAZY_DELAY: Duration = Duration::from_millis(50);

const SEQUENCE: &[u8] = b"sequence";

type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Request {
    changes: Vec<Change>,
    /// `None`: no caller waits, and the change may be written with the next awaited one.
    done: Option<Done>,
}

/// Handle to the writer's thread, and reader of the store.
pub struct Writer {
    /// `None` only while dropping.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    store: Arc<dyn Store>,
    stall: DiskStall,
    path: PathBuf,
    /// Declared after the store, so that it is released after the store is closed.
    _lock: File,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn open(directory: StoreDirectory) -> Result<Self, StoreError> {
        let StoreDirectory { data: path, store, mark, acknowledged, lock } = directory;
        let stall = DiskStall::default();
        let mut task = WriterTask {
            sequence: 0,
            failed: None,
            store: Arc::clone(&store),
            stall: stall.clone(),
            mark,
        };
        if let Some(value) = get(&*store, &path, Table::Meta, SEQUENCE)? {
            let bytes = value.as_slice().try_into().map_err(|_| StoreError::Corrupt {
                path: path.clone(),
                why: "the number of the last commit is invalid".to_owned(),
            })?;
            task.sequence = u64::from_be_bytes(bytes);
        }
        if task.sequence < acknowledged {
            return Err(StoreError::RolledBack { path, found: task.sequence, acknowledged });
        }
        let (requests, inbox) = mpsc::channel(QUEUE_CAPACITY);
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(io_error("start the writer of", &path))?;
        let thread = std::thread::Builder::new()
            .name("raft-store".to_owned())
            .spawn(move || clock.block_on(task.run(inbox)))
            .map_err(io_error("start the writer of", &path))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), store, stall, path, _lock: lock })
    }

    /// Stall detector of the disk.
    pub fn stall(&self) -> DiskStall {
        self.stall.clone()
    }

    /// Queues `changes`; calls `done` once they are on disk or have failed.
    pub async fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.send(Request { changes, done: Some(Box::new(done)) }).await;
    }

    /// Writes `changes`; returns once they are on disk.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.submit(changes, |result| {
            reply.send(result).ok(); // the caller may have given up
        })
        .await;
        answer.await.unwrap_or_else(|_| Err(StoreError::Stopped("the writer has ended".into())))
    }

    /// Queues `changes` to be written soon. A power cut may lose them, but not once a later change
    /// is acknowledged: the order is preserved.
    pub async fn write_lazily(&self, changes: Vec<Change>) {
        self.send(Request { changes, done: None }).await;
    }

    /// Returns the verified value under `key`. Does not see queued changes.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&*self.store, &self.path, table, key)
    }

    /// Returns the verified pairs from `from` (inclusive) to `to` (exclusive). Does not see queued
    /// changes.
    pub fn scan(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, StoreError> {
        let mut pairs = self.store.scan(table, from, to)?;
        for (key, value) in &mut pairs {
            *value = unseal(&self.path, table, key, value)?;
        }
        Ok(pairs)
    }

    /// Error for a store whose contents are invalid.
    pub(crate) fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), why }
    }

    /// Error for stored bytes that cannot be read.
    pub(crate) fn undecodable(&self, error: DecodeError) -> StoreError {
        decode_error(&self.path, error)
    }

    async fn send(&self, request: Request) {
        let Some(requests) = &self.requests else { return };
        if let Err(mpsc::error::SendError(request)) = requests.send(request).await
            && let Some(done) = request.done
        {
            done(Err(StoreError::Stopped("the writer has ended".into())));
        }
    }
}

/// Waits for queued changes, so that dropping the last handle closes and unlocks the store.
impl Drop for Writer {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("Raft store writer panicked");
        }
    }
}

fn get(
    store: &dyn Store,
    path: &std::path::Path,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    store.get(table, key)?.map(|sealed| unseal(path, table, key, &sealed)).transpose()
}

fn unseal(
    path: &std::path::Path,
    table: Table,
    key: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, StoreError> {
    envelope::unseal(table, key, sealed)
        .map(<[u8]>::to_vec)
        .map_err(|why| StoreError::Corrupt { path: path.to_owned(), why })
}

/// The writer's thread.
struct WriterTask {
    sequence: u64,
    failed: Option<String>,
    store: Arc<dyn Store>,
    stall: DiskStall,
    mark: HighWaterMark,
}

impl WriterTask {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut waiting: Vec<Request> = Vec::new();
        loop {
            let urgent = waiting.iter().any(|request| request.done.is_some());
            let next = if waiting.is_empty() {
                inbox.recv().await
            } else if urgent {
                inbox.try_recv().ok()
            } else {
                timeout(LAZY_DELAY, inbox.recv()).await.unwrap_or(None)
            };
            match next {
                Some(request) if size(&waiting) + bytes(&request) <= MAX_COMMIT_BYTES => {
                    waiting.push(request);
                }
                Some(request) => {
                    self.commit(std::mem::take(&mut waiting));
                    waiting.push(request);
                }
                None if waiting.is_empty() => break, // every handle is dropped
                None => self.commit(std::mem::take(&mut waiting)),
            }
        }
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "cannot sync the high-water mark");
        }
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let mut changes = Vec::new();
        let mut waiters = Vec::new();
        for request in requests {
            changes.extend(request.changes);
            waiters.extend(request.done);
        }
        let result = match &self.failed {
            Some(why) => Err(StoreError::Stopped(why.clone())),
            None => self.write(changes),
        };
        if let (Err(error), None) = (&result, &self.failed) {
            tracing::error!(error = chain(error), "Raft store stopped after a failed write");
            self.failed = Some(chain(error));
        }
        let mut result = Some(result);
        for done in waiters {
            done(match result.take() {
                Some(Err(first)) => Err(first),
                Some(Ok(())) => {
                    result = Some(Ok(()));
                    Ok(())
                }
                None => Err(StoreError::Stopped(self.failed.clone().unwrap_or_default())),
            });
        }
    }

    fn write(&mut self, mut changes: Vec<Change>) -> Result<(), StoreError> {
        let sequence = self.sequence + 1;
        changes.push(Change::Put {
            table: Table::Meta,
            key: SEQUENCE.to_vec(),
            value: sequence.to_be_bytes().to_vec(),
        });
        for change in &mut changes {
            if let Change::Put { table, key, value } = change {
                *value = envelope::seal(*table, key, value);
            }
        }
        self.stall.measure(|| {
            self.store.commit(&changes)?;
            self.sequence = sequence;
            self.mark.set(sequence)
        })
    }
}

fn size(requests: &[Request]) -> usize {
    requests.iter().map(bytes).sum()
}

fn bytes(request: &Request) -> usize {
    let value = |change: &Change| match change {
        Change::Put { value, .. } => value.len(),
        Change::Delete { .. } => 0,
    };
    request.changes.iter().map(value).sum()
}
