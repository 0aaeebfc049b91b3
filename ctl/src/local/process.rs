//! Processes that are recorded on disk and must not be confused with others later.
//!
//! A process id alone is reused. With the boot id and the start time it identifies one process
//! permanently. A pidfd pins that process between the check and the signal.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

/// Time between SIGTERM and SIGKILL.
pub(crate) const GRACE_PERIOD: Duration = Duration::from_secs(20);

/// Time for the kernel to end a process after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Error of starting or stopping a process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("start {program}")]
    Start { program: String, source: io::Error },
    #[error("read the start time of process {pid}")]
    Identify { pid: u32, source: io::Error },
    #[error("stop process {pid}")]
    Stop { pid: u32, source: io::Error },
    #[error("process {pid} did not exit within {} s of SIGKILL", KILL_TIMEOUT.as_secs())]
    DidNotExit { pid: u32 },
}

/// Permanent identity of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Ticks since boot (`proc_pid_stat(5)`, field 22).
    start_time: u64,
    boot_id: String,
}

#[cfg(test)]
impl Process {
    /// A process of another boot.
    pub(super) fn sample() -> Self {
        Self { pid: 7, start_time: 123_456, boot_id: "a-boot".to_owned() }
    }
}

impl Process {
    /// Starts a program that outlives this one, in its own process group. Both outputs are appended
    /// to `log`.
    pub(crate) fn start(program: &Path, args: &[String], log: &File) -> Result<Self, ProcessError> {
        let failed =
            |source| ProcessError::Start { program: program.display().to_string(), source };
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log.try_clone().map_err(failed)?)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        // The child is not reaped here: while it is a zombie, its id is not reused.
        let pid = child.id();
        Self::of(pid).map_err(|source| ProcessError::Identify { pid, source })
    }

    fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()? })
    }

    /// Opens a pidfd of the process. `None` if it has exited or its id belongs to another one.
    fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let is_same = Self::of(self.pid).is_ok_and(|found| found == *self);
        (is_same && !is_zombie(self.pid)).then_some(pidfd)
    }

    /// Returns true while the process is running.
    pub(crate) fn is_alive(&self) -> bool {
        self.open().is_some()
    }

    /// Sends SIGTERM, waits, then sends SIGKILL. Returns false if the process was not running.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<bool, ProcessError> {
        let failed = |source| ProcessError::Stop { pid: self.pid, source };
        let Some(pidfd) = self.open() else { return Ok(false) };
        for (signal, timeout) in [(Signal::TERM, grace), (Signal::KILL, KILL_TIMEOUT)] {
            match pidfd_send_signal(&pidfd, signal) {
                Ok(()) => {}
                Err(Errno::SRCH) => return Ok(true),
                Err(error) => return Err(failed(error.into())),
            }
            let watched = pidfd.try_clone().map_err(failed)?;
            let ended = spawn_blocking(move || exits_within(&watched, timeout)).await;
            if ended.map_err(|e| failed(io::Error::other(e)))?.map_err(|e| failed(e.into()))? {
                return Ok(true);
            }
        }
        Err(ProcessError::DidNotExit { pid: self.pid })
    }
}

/// Waits until a process exits: its pidfd becomes readable then (`pidfd_open(2)`).
fn exits_within(pidfd: &OwnedFd, timeout: Duration) -> Result<bool, Errno> {
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ended) => return Ok(ended > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the other processes that have a file open, as far as this user's permissions show them.
pub(super) fn processes_with_open(path: &Path) -> Vec<u32> {
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(wanted) = id(path) else { return Vec::new() };
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten();
    let has = |pid: &u32| {
        *pid != std::process::id()
            && entries(&format!("/proc/{pid}/fd")).any(|file| id(&file.path()) == Some(wanted))
    };
    entries("/proc")
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(has)
        .collect()
}

fn start_time(pid: u32) -> io::Result<u64> {
    field(pid, 22)?.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn is_zombie(pid: u32) -> bool {
    field(pid, 3).is_ok_and(|state| state == "Z" || state == "X")
}

/// Reads a field of `/proc/PID/stat`, numbered as in its manual page. The second, the name, may
/// contain any character, even spaces and parentheses.
fn field(pid: u32, number: usize) -> io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_ascii_whitespace().nth(number.checked_sub(3)?))
        .map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh_into(script: &str, log: &File) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], log).unwrap()
    }

    fn sh(script: &str) -> Process {
        sh_into(script, &tempfile::tempfile().unwrap())
    }

    #[tokio::test]
    async fn a_process_is_stopped_once() {
        let process = sh("exec sleep 60");
        assert!(process.is_alive());
        assert!(process.stop(GRACE_PERIOD).await.unwrap());
        assert!(!process.is_alive());
        assert!(!process.stop(GRACE_PERIOD).await.unwrap());
    }

    #[tokio::test]
    async fn a_process_that_does_not_listen_is_killed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let script = "trap '' TERM; echo ready; while :; do sleep 60; done";
        let process = sh_into(script, log.as_file());
        let trapped = async || (fs::read(log.path()).unwrap() == b"ready\n").then_some(());
        muster_kit::until("the trap", trapped).await;
        assert!(process.stop(Duration::from_millis(300)).await.unwrap());
        assert!(!process.is_alive());
    }

    #[tokio::test]
    async fn another_process_under_the_same_id_is_left_alone() {
        let mine = sh("exec sleep 60");
        let recorded = Process { start_time: mine.start_time - 1, ..mine.clone() };
        assert!(!recorded.is_alive());
        assert!(!recorded.stop(GRACE_PERIOD).await.unwrap());
        let before_reboot = Process { boot_id: "another".to_owned(), ..mine.clone() };
        assert!(!before_reboot.stop(GRACE_PERIOD).await.unwrap());
        assert!(mine.is_alive());
        assert!(mine.stop(GRACE_PERIOD).await.unwrap());
    }
}
