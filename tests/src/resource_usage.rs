//! Memory and file handles of a running process, sampled while a test does something to it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Interval between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Usage at one moment, or the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// Open file handles.
    pub handles: usize,
}

impl ResourceUsage {
    /// Reads the current usage of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(process.join("status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        let handles = std::fs::read_dir(process.join("fd"))?.count();
        Ok(Self { resident: resident.parse()?, handles })
    }

    fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            handles: self.handles.max(other.handles),
        }
    }
}

/// Usage before, during (maximum) and after the work.
#[derive(Debug, Clone, Copy)]
pub struct UsageRange {
    pub before: ResourceUsage,
    pub peak: ResourceUsage,
    pub after: ResourceUsage,
}

impl std::fmt::Display for UsageRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before, peak, after } = self;
        let mib = |usage: &ResourceUsage| usage.resident / 1024;
        write!(
            f,
            "resident {} MiB before, {} MiB at most, {} MiB after; handles {}, {}, {}",
            mib(before),
            mib(peak),
            mib(after),
            before.handles,
            peak.handles,
            after.handles
        )
    }
}

/// Samples a process while `work` runs.
pub fn measure<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(UsageRange, T)> {
    let before = ResourceUsage::of(pid)?;
    let done = AtomicBool::new(false);
    let (peak, result) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                // If the process ends, the last reading reports it.
                if let Ok(now) = ResourceUsage::of(pid) {
                    peak = peak.max(now);
                }
                std::thread::sleep(SAMPLE_INTERVAL);
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (sampler.join(), result)
    });
    let peak = peak.map_err(|_| anyhow::anyhow!("the watcher of process {pid} panicked"))?;
    Ok((UsageRange { before, peak, after: ResourceUsage::of(pid)? }, result?))
}
