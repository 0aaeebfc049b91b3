//! Mount namespace of a host, for its disks. Only the test process holds it open, so every mount in
//! it disappears with that process.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

/// Mount namespace that exists for as long as this process has it open.
#[derive(Debug, Clone)]
pub(super) struct MountNamespace(Arc<File>);

impl MountNamespace {
    /// Makes one for a network namespace: that of a shell, which then ends.
    pub(super) fn of(namespace: &str) -> Result<Self> {
        let mut shell = Command::new("ip")
            .args(["netns", "exec", namespace, "sh", "-c", "echo here; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run ip (Debian package iproute2)")?;
        let mut line = String::new();
        let output = shell.stdout.take().context("a pipe")?;
        BufReader::new(output).read_line(&mut line)?;
        let opened = File::open(format!("/proc/{}/ns/mnt", shell.id()));
        drop(shell.stdin.take());
        shell.wait()?;
        ensure!(line == "here\n", "no shell started in {namespace}: {line:?}");
        Ok(Self(Arc::new(opened.context("open the mount namespace of a host")?)))
    }

    /// Path under which this process has it open, for `nsenter`.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}
