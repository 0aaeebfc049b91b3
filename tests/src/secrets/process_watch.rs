//! Arguments, environment and name of every process of the machine during a run, also of
//! short-lived ones: polls `/proc` every few milliseconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Interval between two scans for new processes.
const POLL: Duration = Duration::from_millis(10);

/// Age up to which a process is read at every scan. It may execute another program, as every
/// command on a host begins as `ip`.
const EARLY: Duration = Duration::from_millis(500);

/// Interval between two reads of older processes.
const REREAD: Duration = Duration::from_secs(2);

/// Each text, with one of the files that showed it.
type Shown = BTreeMap<Vec<u8>, PathBuf>;

/// Thread that polls.
#[derive(Debug)]
pub struct ProcessWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Shown>>,
}

impl ProcessWatch {
    /// Starts polling.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, thread: Some(std::thread::spawn(move || poll_until(&stopped))) }
    }

    /// Stops polling and returns all texts.
    pub fn seen(mut self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("the watch has not ended before")?;
        let shown = thread.join().expect("the thread only reads files");
        Ok(shown.into_iter().map(|(text, place)| (place, text)).collect())
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Times at which a process was first seen and last read.
struct Observed {
    first: Instant,
    last: Instant,
}

fn poll_until(stop: &AtomicBool) -> Shown {
    let (mut shown, mut observed) = (Shown::new(), BTreeMap::new());
    while !stop.load(Ordering::Acquire) {
        let now = Instant::now();
        let before = std::mem::take(&mut observed);
        for pid in pids() {
            let Observed { first, last } = before
                .get(&pid)
                .map_or(Observed { first: now, last: now }, |observed| Observed { ..*observed });
            let is_new = first == now;
            let reads = is_new || now - first < EARLY || now - last > REREAD;
            if reads {
                read_process(pid, &mut shown);
            }
            observed.insert(pid, Observed { first, last: if reads { now } else { last } });
        }
        std::thread::sleep(POLL);
    }
    shown
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Reads what `/proc` shows of a process. If it has ended, there is nothing.
fn read_process(pid: u32, shown: &mut Shown) {
    for file in ["cmdline", "environ", "comm"] {
        let path = Path::new("/proc").join(pid.to_string()).join(file);
        if let Ok(text) = fs::read(&path)
            && !text.is_empty()
            && !shown.contains_key(&text)
        {
            shown.insert(text, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_that_is_soon_gone_is_seen_with_its_arguments_and_its_environment() {
        let poll_until = ProcessWatch::start();
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec sleep 0.1 # unseen", "argument-of-a-child"]);
        shell.env("SOME", "variable-of-a-child").status().unwrap();
        let seen = poll_until.seen().unwrap();
        let shows = |word: &str| {
            let word = word.as_bytes();
            seen.iter().any(|(_, text)| text.windows(word.len()).any(|found| found == word))
        };
        // The shell's own arguments may be gone before the first scan.
        assert!(shows("sleep\x000.1") && shows("SOME=variable-of-a-child"), "{}", seen.len());
    }
}
