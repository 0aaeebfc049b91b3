//! The one writer: a thread that owns the order of all changes. Requests that arrive while a
//! commit is under way share the next one. After the first error nothing is written any more,
//! since nobody knows what the disk holds.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::directory::Directory;
use super::mark::Mark;
use super::stall::Stall;
use super::{Change, Store, StoreError, Table, record};
use muster_types::error::chain;

/// Requests that may wait; more callers than this wait to be heard.
const QUEUE: usize = 256;

/// A commit takes no more than this many bytes of values before it is written.
const COMMIT_BYTES: usize = 4 << 20;

/// How long a change that nobody waits for may lie in memory.
const LAZY: Duration = Duration::from_millis(50);

const SEQUENCE: &[u8] = b"sequence";

type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Request {
    changes: Vec<Change>,
    /// None: nobody waits, and the change may be written with the next one that is waited for.
    done: Option<Done>,
}

/// Writes to a store, and reads what is not in the log cache.
pub struct Writer {
    /// None only while dropping.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    store: Arc<dyn Store>,
    stall: Stall,
    path: PathBuf,
    /// Declared after the store: given back once that is closed.
    _lock: File,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn open(directory: Directory) -> Result<Self, StoreError> {
        let Directory { data: path, store, mark, marked, lock } = directory;
        let stall = Stall::default();
        let mut run = Run {
            sequence: 0,
            failed: None,
            store: Arc::clone(&store),
            stall: stall.clone(),
            mark,
        };
        if let Some(value) = get(&*store, &path, Table::Meta, SEQUENCE)? {
            let bytes = value.as_slice().try_into().map_err(|_| StoreError::Corrupt {
                path: path.clone(),
                why: "the number of the last commit is not a number".to_owned(),
            })?;
            run.sequence = u64::from_be_bytes(bytes);
        }
        if run.sequence < marked {
            return Err(StoreError::WentBack { path, found: run.sequence, marked });
        }
        let (requests, inbox) = mpsc::channel(QUEUE);
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(super::durable::failed("start the writer of", &path))?;
        let thread = std::thread::Builder::new()
            .name("raft-store".to_owned())
            .spawn(move || clock.block_on(run.serve(inbox)))
            .map_err(super::durable::failed("start the writer of", &path))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), store, stall, path, _lock: lock })
    }

    /// For how long the disk has been waited for.
    pub fn stall(&self) -> Stall {
        self.stall.clone()
    }

    /// Queues `changes`; `done` is called when they are on disk, or will never be.
    pub async fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.send(Request { changes, done: Some(Box::new(done)) }).await;
    }

    /// Writes `changes` and returns when they are on disk.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.submit(changes, |result| {
            reply.send(result).ok(); // the caller may have given up
        })
        .await;
        answer.await.unwrap_or_else(|_| Err(StoreError::Stopped("the writer has ended".into())))
    }

    /// Queues `changes` to be written soon. A power cut may lose them, but never them alone:
    /// whatever is acknowledged after them has them before it.
    pub async fn write_lazily(&self, changes: Vec<Change>) {
        self.send(Request { changes, done: None }).await;
    }

    /// The verified value under `key`. Queued changes are not seen.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&*self.store, &self.path, table, key)
    }

    /// The verified pairs from `from` to before `to`. Queued changes are not seen.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<super::Pair>, StoreError> {
        let mut pairs = self.store.scan(table, from, to)?;
        for (key, value) in &mut pairs {
            *value = unseal(&self.path, table, key, value)?;
        }
        Ok(pairs)
    }

    /// What is wrong with the store, when it has been found to be wrong.
    pub(super) fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), why }
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

/// Waits for what is queued: when the last user is gone, the store is closed and unlocked.
impl Drop for Writer {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the Raft store panicked");
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
    record::unseal(table, key, sealed)
        .map(<[u8]>::to_vec)
        .map_err(|why| StoreError::Corrupt { path: path.to_owned(), why })
}

/// The thread's side.
struct Run {
    sequence: u64,
    failed: Option<String>,
    store: Arc<dyn Store>,
    stall: Stall,
    mark: Mark,
}

impl Run {
    async fn serve(&mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut waiting: Vec<Request> = Vec::new();
        loop {
            let urgent = waiting.iter().any(|request| request.done.is_some());
            let next = if waiting.is_empty() {
                inbox.recv().await
            } else if urgent {
                inbox.try_recv().ok()
            } else {
                timeout(LAZY, inbox.recv()).await.unwrap_or(None)
            };
            match next {
                Some(request) if size(&waiting) + bytes(&request) <= COMMIT_BYTES => {
                    waiting.push(request);
                }
                Some(request) => {
                    self.commit(std::mem::take(&mut waiting));
                    waiting.push(request);
                }
                None if waiting.is_empty() => break, // every handle is gone
                None => self.commit(std::mem::take(&mut waiting)),
            }
        }
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the last mark of the Raft store was not synced");
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
            tracing::error!(error = chain(error), "the Raft store takes no more writes");
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
                *value = record::seal(*table, key, value);
            }
        }
        self.stall.during(|| {
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
