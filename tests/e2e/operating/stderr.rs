//! Standard error that nobody reads, that is closed or that is full: the node runs on and stops when
//! it is told to.

use std::fs::File;
use std::io::{PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::CommandOutput;
use muster_tests::loopback::LoopbackMachine;
use muster_tests::until;
use rustix::process::{Pid, Signal, kill_process};

/// Time for an orderly stop, etcd included.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Standard error of a node, and the end that keeps a pipe open.
fn bad_stderr() -> Result<[(&'static str, OwnedFd, Option<PipeReader>); 3]> {
    let (unread, to_unread) = pipe()?;
    let (gone, to_gone) = pipe()?;
    drop(gone);
    let full = File::options().write(true).open("/dev/full")?;
    Ok([
        ("unread pipe", to_unread.into(), Some(unread)),
        ("closed pipe", to_gone.into(), None),
        ("full disk", full.into(), None),
    ])
}

/// With an unread pipe all of musterd stopped, and only SIGKILL ended it. With a closed pipe or a
/// full disk it panicked, exit code 101, and etcd ended with it.
#[test]
fn a_node_runs_on_and_stops_whatever_happens_to_its_standard_error() -> Result<()> {
    for (what, stderr, _open) in bad_stderr()? {
        let machine = LoopbackMachine::new()?;
        let mut musterd = machine.musterd()?;
        // More than a pipe holds.
        musterd.env("MUSTER_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::null());
        let mut node = Killed(musterd.stderr(stderr).spawn()?);
        until("the node to be healthy", HEALTHY, || {
            machine.ctl(&["health"]).and_then(CommandOutput::success).map_err(|e| e.to_string())
        })
        .with_context(|| format!("{what}: {:?}", node.0.try_wait()))?;
        let pid = i32::try_from(node.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM)?;
        let status = until("musterd to stop", STOP_TIMEOUT, || match node.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
        .context(what)?;
        ensure!(status.success() && status.signal().is_none(), "{what}: {status}");
    }
    Ok(())
}

#[test]
fn the_exit_code_of_a_refused_start_does_not_depend_on_standard_error() -> Result<()> {
    for (what, stderr, _open) in bad_stderr()? {
        let machine = LoopbackMachine::new()?;
        std::fs::remove_file(machine.config())?;
        let status = machine.musterd()?.stdin(Stdio::null()).stderr(stderr).status()?;
        ensure!(status.code() == Some(78), "{what}: {status}");
    }
    Ok(())
}

/// Ends the node of a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
