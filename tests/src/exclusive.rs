//! Shares the machine among tests. Most run next to others; a test that measures runs alone.
//!
//! The locks are files next to the test binaries, so they hold between the threads of one binary
//! (`cargo test`) and between processes (nextest). They do not bound the load of other programs.

use std::cell::Cell;
use std::fs::File;
use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Held by each test while it runs: shared, or exclusively.
const MACHINE: &str = "muster-tests.machine.lock";

/// Held while waiting for [`MACHINE`], so that a stream of shared holders cannot starve an
/// exclusive one.
const QUEUE: &str = "muster-tests.queue.lock";

thread_local! {
    /// Number of locks that this thread holds. A nested one takes no file lock: it could wait for
    /// itself.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Keeps this thread's test on the machine until dropped. Stays on its thread.
#[derive(Debug)]
pub struct MachineLock {
    _file: Option<File>,
    _this_thread: PhantomData<*const ()>,
}

impl MachineLock {
    /// Waits for any test that runs alone.
    pub fn shared() -> Result<Self> {
        Self::take(File::lock_shared)
    }

    /// Waits until no other test runs, and keeps others from starting.
    pub fn exclusive() -> Result<Self> {
        Self::take(File::lock)
    }

    fn take(lock: fn(&File) -> std::io::Result<()>) -> Result<Self> {
        let file = if HELD.get() == 0 { Some(locked(lock)?) } else { None };
        HELD.set(HELD.get() + 1);
        Ok(Self { _file: file, _this_thread: PhantomData })
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

fn locked(lock: fn(&File) -> std::io::Result<()>) -> Result<File> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("the test binary is in no directory")?;
    let open = |name: &str| -> Result<File> {
        let path: &Path = &dir.join(name);
        File::create(path).with_context(|| format!("create {}", path.display()))
    };
    let (queue, machine) = (open(QUEUE)?, open(MACHINE)?);
    queue.lock().context("lock the queue of tests")?;
    lock(&machine).context("lock the machine for a test")?;
    Ok(machine)
}
