//! Cost of processes: memory, processor time, traffic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use muster_tests::lab::{Host, Lab};

/// The kernel's unit of processor time.
const TICK: Duration = Duration::from_millis(10);

/// Resident memory of a process in MiB: total, and its anonymous part.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    pub anonymous: f64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |name: &str| -> Result<f64> {
            let line = status.lines().find(|line| line.starts_with(name)).context("in status")?;
            let kib = line.split_whitespace().nth(1).context("a number")?;
            Ok(kib.parse::<f64>()? / 1024.0)
        };
        Ok(Self { resident: mib("VmRSS:")?, anonymous: mib("RssAnon:")? })
    }
}

/// Returns the processor time of a process so far.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| -> Result<u32> { Ok(fields.get(at).context("in stat")?.parse()?) };
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// Returns a process on a host by the name of its program.
pub fn pid_of(host: &Host, program: &str) -> Result<u32> {
    for pid in host.pids()? {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == program {
            return Ok(pid);
        }
    }
    anyhow::bail!("no {program} runs on {}", host.name())
}

/// Cost of one process at rest.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub memory: Memory,
    /// Percentage of one core.
    pub processor: f64,
}

/// Measures the cost of processes.
#[derive(Debug)]
pub struct CostMeter {
    pids: Vec<u32>,
    start: Instant,
    before: Vec<Duration>,
}

impl CostMeter {
    pub fn begin(pids: Vec<u32>) -> Result<Self> {
        let before = pids.iter().map(|pid| processor_time(*pid)).collect::<Result<_>>()?;
        Ok(Self { pids, start: Instant::now(), before })
    }

    /// Returns the cost of each process since the beginning.
    pub fn end(self) -> Result<Vec<Cost>> {
        let took = self.start.elapsed().as_secs_f64();
        let each = self.pids.iter().zip(self.before);
        each.map(|(pid, before)| {
            let spent = processor_time(*pid)?.saturating_sub(before).as_secs_f64();
            Ok(Cost { memory: Memory::of(*pid)?, processor: spent / took * 100.0 })
        })
        .collect()
    }
}

/// Counts the traffic of hosts, at the bridge and with Ethernet headers.
#[derive(Debug)]
pub struct TrafficMeter<'a> {
    lab: &'a Lab,
    hosts: Vec<&'a Host>,
    start: Instant,
    before: Vec<u64>,
}

impl<'a> TrafficMeter<'a> {
    pub fn begin(lab: &'a Lab, hosts: Vec<&'a Host>) -> Result<Self> {
        let before = lab.sent(&hosts)?;
        Ok(Self { lab, hosts, start: Instant::now(), before })
    }

    /// Returns the bytes per second that each host has sent since the beginning.
    pub fn end(self) -> Result<Vec<f64>> {
        let (after, took) = (self.lab.sent(&self.hosts)?, self.start.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        let rate = |(before, after): (&u64, &u64)| after.saturating_sub(*before) as f64 / took;
        Ok(self.before.iter().zip(&after).map(rate).collect())
    }
}
