//! Host of the lab: a network namespace, a host name, an address, a directory.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use muster_types::DEFAULT_PORT;

use super::mounts::MountNamespace;
use super::{Lab, Process, run};

/// Debian's libfaketime for processes with threads.
fn faketime() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH)
}

/// Machine of the lab.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    pub(super) namespace: String,
    lan: String,
    port: String,
    address: Ipv4Addr,
    dir: PathBuf,
    /// Mount namespace; `None` until the host has disks.
    pub(super) mounts: Option<MountNamespace>,
}

impl Host {
    pub(super) fn create(lab: &Lab, name: &str, number: u8) -> Result<Self> {
        let host = Self {
            name: name.to_owned(),
            namespace: format!("{}-h{number}", lab.id),
            lan: lab.lan(),
            port: format!("p{number}"),
            address: Ipv4Addr::new(10, 77, 0, number),
            dir: lab.dir().join(name),
            mounts: None,
        };
        std::fs::create_dir_all(&host.dir)?;
        let Self { namespace, lan, port, .. } = &host;
        run("ip", &["netns", "add", namespace])?;
        run(
            "ip",
            &[
                "link", "add", port, "netns", lan, "type", "veth", "peer", "name", "eth0", "netns",
                namespace,
            ],
        )?;
        run("ip", &["-n", lan, "link", "set", port, "master", "br0", "up"])?;
        run("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
        run("ip", &["-n", namespace, "link", "set", "eth0", "up"])?;
        host.add_address(host.address)?;
        run("ip", &["-n", namespace, "route", "add", "default", "dev", "eth0"])?;
        host.reserve_ports(&DEFAULT_PORT.to_string())?;
        Ok(host)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Directory of this host.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The host's bridge port, as the packet filter names it.
    pub(super) fn port(&self) -> &str {
        &self.port
    }

    /// Returns a command that runs on this host, under its host name.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        if let Some(mounts) = &self.mounts {
            command.arg("nsenter").arg(format!("--mount={}", mounts.path().display()));
            command.arg("--wd=.");
        }
        command
            .args(["unshare", "--uts", "sh", "-c"])
            .arg("hostname \"$0\" && exec \"$@\"")
            .arg(&self.name);
        if self.clock().exists() {
            command.arg("env").args(self.clock_environment());
        }
        command.arg(program.as_ref());
        command
    }

    /// Sets this host's clock off by so many seconds. It affects every process that was started
    /// after the first call, within a second. Programs that do not ask the C library for the time
    /// (etcd, as Go does) keep the machine's clock.
    pub fn set_clock(&self, seconds: i32) -> Result<()> {
        let library = faketime();
        ensure!(
            Path::new(&library).exists(),
            "{library} is missing: install the Debian package `faketime`"
        );
        // Renamed into place, so that a reader never sees half of it.
        let new = self.dir.join("clock.new");
        std::fs::write(&new, format!("{seconds:+}s\n"))?;
        Ok(std::fs::rename(new, self.clock())?)
    }

    fn clock(&self) -> PathBuf {
        self.dir.join("clock")
    }

    fn clock_environment(&self) -> [String; 4] {
        [
            format!("LD_PRELOAD={}", faketime()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.clock().display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// Starts `command` (made by [`Host::command`]) with its output in `DIR/<log>.log`.
    pub fn spawn(&self, command: Command, log: &str) -> Result<Process> {
        Process::spawn(command, &self.dir.join(format!("{log}.log")))
    }

    /// Kills everything that runs on this host, at once.
    pub fn kill_all(&self) -> Result<()> {
        self.signal_all("-KILL")
    }

    /// Stops every process on this host (`SIGSTOP`).
    pub fn freeze(&self) -> Result<()> {
        self.signal_all("-STOP")
    }

    /// Resumes every process on this host.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all("-CONT")
    }

    fn signal_all(&self, signal: &str) -> Result<()> {
        for pid in self.pids()? {
            // A process that has just ended is no failure.
            run("kill", &[signal, &pid.to_string()]).ok();
        }
        Ok(())
    }

    /// Returns every process that runs on this host.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let listed = run("ip", &["netns", "pids", &self.namespace])?;
        listed.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Replaces the host's address.
    pub fn change_address(&mut self, to: Ipv4Addr) -> Result<()> {
        run("ip", &["-n", &self.namespace, "addr", "flush", "dev", "eth0", "scope", "global"])?;
        self.add_address(to)?;
        run("ip", &["-n", &self.namespace, "route", "replace", "default", "dev", "eth0"])?;
        self.address = to;
        Ok(())
    }

    /// Reserves these ports, so that no outgoing connection gets them, as `deploy/muster.sysctl.conf`
    /// does. An empty list reserves none.
    pub fn reserve_ports(&self, ports: &str) -> Result<()> {
        let write = "echo \"$0\" >/proc/sys/net/ipv4/ip_local_reserved_ports";
        run("ip", &["netns", "exec", &self.namespace, "sh", "-c", write, ports]).map(drop)
    }

    /// Path of this host's network namespace.
    pub fn namespace_path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        run(
            "ip",
            &["-n", &self.namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"],
        )?;
        Ok(())
    }
}
