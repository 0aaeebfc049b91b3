//! Standard error of `musterd`: log lines and the last error. A thread of its own writes them, so
//! that a reader that does not read, a closed pipe or a full disk never stops the node. Lines that
//! cannot be written are dropped and counted.

mod queue;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, ThreadId};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

use queue::Queue;

/// Time limit of [`Stderr::flush`]. A reader on a busy machine needs a moment; one that does not
/// read must not delay the exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle to standard error. Cloneable. Writing never blocks and never fails.
#[derive(Debug, Clone)]
pub struct Stderr(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a line is queued.
    queued: Condvar,
    /// Notified when everything is written.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// True while the thread writes a line.
    is_writing: bool,
    writer: Option<ThreadId>,
}

impl Stderr {
    /// Starts the thread that writes to this process's standard error.
    pub fn start() -> io::Result<Self> {
        Self::start_with(io::stderr())
    }

    fn start_with(file: impl AsFd + Send + 'static) -> io::Result<Self> {
        let stderr = Self(Arc::default());
        let writer = stderr.clone();
        let thread =
            Builder::new().name("stderr".to_owned()).spawn(move || writer.run(file.as_fd()))?;
        stderr.lock().writer = Some(thread.thread().id());
        Ok(stderr)
    }

    /// Queues a line for an operator, even if the queue is full.
    pub fn print(&self, line: &str) {
        self.lock().queue.push_always(format!("{line}\n").as_bytes());
        self.0.queued.notify_one();
    }

    /// Waits until everything is written, but only for a moment.
    pub fn flush(&self) {
        let has_more = |state: &mut State| state.is_writing || !state.queue.is_empty();
        let waited = self.0.drained.wait_timeout_while(self.lock(), FLUSH_TIMEOUT, has_more);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// A panic leaves the state as it is: each change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the queued lines for as long as the process runs.
    fn run(&self, file: BorrowedFd<'_>) {
        // After a line that was written in part, the next one begins on a line of its own.
        let mut is_torn = false;
        loop {
            let line = self.next();
            let written = if is_torn {
                write(file, &[b"\n", &line[..]].concat())
            } else {
                write(file, &line)
            };
            is_torn = match written {
                Ok(()) => false,
                Err(Unwritten { is_torn: torn }) => is_torn || torn,
            };
            self.on_written(written.is_ok());
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.queue.pop() {
                state.is_writing = true;
                return line;
            }
            state = self.0.queued.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn on_written(&self, is_written: bool) {
        let mut state = self.lock();
        let dropped = if is_written {
            state.queue.take_dropped(Instant::now())
        } else {
            state.queue.add_dropped();
            None
        };
        drop(state);
        if let Some(lines) = dropped {
            tracing::warn!(lines, "log lines dropped: standard error was not read or not writable");
        }
        let mut state = self.lock();
        state.is_writing = false;
        if state.queue.is_empty() {
            self.0.drained.notify_all();
        }
    }
}

/// A line was not written. `is_torn`: its beginning was.
struct Unwritten {
    is_torn: bool,
}

/// Writes all bytes. Waits while the reader does not read.
fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Unwritten> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(count) if count > 0 => rest = &rest[count..],
            Err(Errno::INTR) => {}
            // Another process may have made the shared file description non-blocking. An error of
            // poll shows in the next write.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&file, PollFlags::OUT)], None).ok();
            }
            Ok(_) | Err(_) => return Err(Unwritten { is_torn: rest.len() < bytes.len() }),
        }
    }
    Ok(())
}

/// Queues one line per call, as `tracing_subscriber` writes an event in one piece.
#[derive(Debug)]
pub struct LineWriter<'a>(&'a Stderr);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        // The thread's own report must not be dropped. It is one line per written line at most.
        if state.writer == Some(std::thread::current().id()) {
            state.queue.push_always(line);
        } else {
            state.queue.push(line);
        }
        drop(state);
        self.0.0.queued.notify_one();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

#[cfg(test)]
mod tests;
