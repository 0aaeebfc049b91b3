//! Description of the machine, and versions of the measured programs.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;

use muster_tests::ctl::binary;

/// Context of all measurements.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_gib: f64,
    pub kernel: String,
    /// File system of all daemons' stores.
    pub file_system: String,
    /// Load average over one minute at the start. If it is not near 0, other programs were running.
    pub load: f64,
    pub musterd: String,
    pub etcd: String,
    pub serf: String,
    /// `release` or `dev`. Only release builds are comparable.
    pub build: &'static str,
}

impl Machine {
    /// Describes this machine. Fails if etcd or serf is not installed.
    pub fn describe() -> Result<Self> {
        let information = read("/proc/cpuinfo")?;
        let processor = field(&information, "model name").unwrap_or("unknown").to_owned();
        let memory = read("/proc/meminfo")?;
        let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next());
        let kib: f64 = kib.and_then(|text| text.parse().ok()).context("MemTotal in meminfo")?;
        let load = read("/proc/loadavg")?;
        let system = rustix::system::uname();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor,
            memory_gib: (kib / 1024.0 / 102.4).round() / 10.0,
            kernel: format!(
                "{} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy()
            ),
            file_system: file_system(&std::env::temp_dir())?,
            load: load.split(' ').next().and_then(|text| text.parse().ok()).context("loadavg")?,
            musterd: first_line(Command::new(binary("musterd")?).arg("--version"))?,
            etcd: first_line(Command::new("etcd").arg("--version"))?,
            serf: format!("serf {}", first_line(Command::new("serf").arg("version"))?),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cores ({}), {} GiB, {}, stores on {}, load {} at the start",
            self.cores, self.processor, self.memory_gib, self.kernel, self.file_system, self.load
        )?;
        write!(f, "{} ({} build), {}, {}", self.musterd, self.build, self.etcd, self.serf)
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// Returns the value of the first `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Returns the type of the file system that holds `path`, and its device.
fn file_system(path: &Path) -> Result<String> {
    let mounts = read("/proc/self/mounts")?;
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, at, kind) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(at).then_some((at.len(), format!("{kind} ({device})")))
    });
    let (_, found) = holding.max_by_key(|(depth, _)| *depth).context("no mount holds it")?;
    Ok(found)
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}: is it installed? (tests/bench.sh does)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or("unknown").to_owned())
}
