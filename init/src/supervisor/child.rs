//! One child process, spawned and waited for by its own operating system thread.
//!
//! A child must not outlive this process, however this process ends: a left-over etcd would block
//! the ports and the data of the next one. So the kernel kills it with us (`PR_SET_PDEATHSIG`).
//! That signal fires when the *thread* that spawned the child ends, and the runtime's threads come
//! and go. Therefore the spawning thread also waits for the child, and ends before it only if the
//! whole process does. Signals go through a pidfd, which cannot refer to another process that
//! reuses the pid.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{self, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc;

use super::step::Exit;
use crate::logs::{LastLines, LogConfig, RotatingFile};

/// Number of last output lines reported with an exit.
const LAST_LINES: usize = 20;

/// Time limit for draining the log after the process exited: a grandchild may hold the other end
/// of the pipe open indefinitely.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The command to run. The environment is exactly this one; nothing is inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute path of the executable.
    pub program: PathBuf,
    /// Visible to every user of the machine: never put a secret here.
    pub arguments: Vec<OsString>,
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory.
    pub directory: PathBuf,
}

/// Reason for refusing a start. Final until another command is requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    /// The data that the process must continue from is gone.
    #[error("{0}")]
    DataLost(String),
    /// Anything else.
    #[error("{0}")]
    Forbidden(String),
}

/// Check that runs before every start, restarts included. May read and write files.
pub type StartCheck = Arc<dyn Fn() -> Result<(), StartRefusal> + Send + Sync>;

/// Events from the child's thread, in this order: one of the first three, then `Exited` after
/// `Spawned`.
pub(super) enum ChildEvent {
    Spawned(Child),
    NotSpawned(io::Error),
    Refused(StartRefusal),
    Exited { exit: Exit, last_lines: Vec<String> },
}

/// A running child. Dropping it kills the process.
pub(super) struct Child {
    pub(super) pid: u32,
    fd: OwnedFd,
}

impl Child {
    /// Sends a signal. It is no error if the process has already exited.
    pub(super) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.fd, signal).ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Runs the start check, starts the command in its own process group and waits for its exit, all
/// on a new thread.
pub(super) fn launch(
    command: Command,
    start_check: Option<StartCheck>,
    log: LogConfig,
    events: mpsc::Sender<ChildEvent>,
) -> io::Result<()> {
    let body = move || {
        // If the supervisor task has ended, nothing needs the events.
        if let Err(refusal) = start_check.map_or(Ok(()), |start_check| start_check()) {
            events.blocking_send(ChildEvent::Refused(refusal)).ok();
            return;
        }
        match spawn(command, log) {
            Ok(started) => wait_for_exit(started, &events),
            Err(error) => {
                events.blocking_send(ChildEvent::NotSpawned(error)).ok();
            }
        }
    };
    thread::Builder::new().name("child".to_owned()).spawn(body).map(drop)
}

struct Started {
    process: process::Child,
    child: Child,
    log: std::sync::mpsc::Receiver<Vec<String>>,
}

fn spawn(command: Command, log: LogConfig) -> io::Result<Started> {
    let path = log.path.clone();
    let log = RotatingFile::open(log).map_err(|e| {
        io::Error::new(e.kind(), format!("cannot open its log {}: {e}", path.display()))
    })?;
    let (output, input) = io::pipe()?;
    let mut process = process::Command::new(command.program);
    process
        .args(command.arguments)
        .env_clear()
        .envs(command.environment)
        .current_dir(command.directory)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0);
    kill_with_parent(&mut process);
    let (done, last_lines) = sync_channel(1);
    thread::Builder::new().name("child-log".to_owned()).spawn(move || {
        done.send(copy_output(output, log)).ok(); // no receiver if the start failed
    })?;
    let mut process = process.spawn()?; // the builder holds the pipe's write end until return
    let fd = match rustix::process::pidfd_open(Pid::from_child(&process), PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(error) => {
            process.kill()?;
            process.wait()?;
            return Err(error.into());
        }
    };
    let child = Child { pid: process.id(), fd };
    Ok(Started { process, child, log: last_lines })
}

/// Makes the kernel kill the child when the spawning thread ends.
fn kill_with_parent(command: &mut process::Command) {
    let us = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between the fork and the call above.
        if rustix::process::getppid() == Some(us) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()))
        }
    };
    #[expect(unsafe_code, reason = "the only way to set a death signal between fork and exec")]
    // SAFETY: between fork and exec the closure makes two system calls and builds an error from a
    // number: it allocates nothing, takes no lock and touches no memory of other threads.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Reports the start, waits for the process to exit and reports the exit.
fn wait_for_exit(started: Started, events: &mpsc::Sender<ChildEvent>) {
    let Started { mut process, child, log } = started;
    // If undelivered, the handle is dropped, which kills the child: the wait below always ends.
    events.blocking_send(ChildEvent::Spawned(child)).ok();
    let exit = process.wait().map_or(Exit::Unknown, exit_of);
    let last_lines = log.recv_timeout(DRAIN_TIMEOUT).unwrap_or_default();
    events.blocking_send(ChildEvent::Exited { exit, last_lines }).ok();
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Copies the output into the log and returns the last lines. Ignores failed writes: a full disk
/// must not block the process through a full pipe.
fn copy_output(mut output: PipeReader, mut log: RotatingFile) -> Vec<String> {
    let mut last = LastLines::new(LAST_LINES);
    let mut piece = vec![0; 32 << 10];
    loop {
        match output.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                last.feed(&piece[..read]);
                log.write(&piece[..read]).ok();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    last.finish()
}
