//! Members that a node sees, read from its log: the only view of a node's state that costs the node
//! nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Interval between two reads of all logs.
const POLL: Duration = Duration::from_millis(5);

/// Reader that follows a growing log.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    partial: String,
}

impl Tail {
    /// Starts at the beginning. The file may be created later.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: String::new() }
    }

    /// Returns the complete lines since the last call.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.offset += u64::try_from(bytes.len())?;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.partial.rfind('\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        Ok(whole.lines().map(str::to_owned).collect())
    }
}

/// Event of another member in a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    Seen(String),
    Gone(String),
}

/// Parser of a daemon's log lines.
pub type Reader = fn(&str) -> Option<MemberEvent>;

/// Members that one node sees, by its log.
#[derive(Debug)]
pub struct MemberView {
    tail: Tail,
    read: Reader,
    pub seen: BTreeSet<String>,
    /// Number of members that disappeared.
    pub losses: usize,
}

impl MemberView {
    pub fn of(log: &Path, read: Reader) -> Self {
        Self { tail: Tail::of(log), read, seen: BTreeSet::new(), losses: 0 }
    }

    /// Reads new lines.
    pub fn update(&mut self) -> Result<()> {
        for line in self.tail.lines()? {
            match (self.read)(&line) {
                Some(MemberEvent::Seen(who)) => {
                    self.seen.insert(who);
                }
                Some(MemberEvent::Gone(who)) => {
                    self.losses += usize::from(self.seen.remove(&who));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Clears the view, for a restart of the daemon.
    pub fn reset(&mut self) -> Result<()> {
        self.update()?;
        self.seen.clear();
        Ok(())
    }
}

/// Updates all views until each satisfies `fits`. Returns that time.
pub fn until_all(
    what: &str,
    limit: Duration,
    views: &mut [MemberView],
    fits: impl Fn(&MemberView) -> bool,
) -> Result<Instant> {
    let start = Instant::now();
    loop {
        for one in views.iter_mut() {
            one.update()?;
        }
        let missing = views.iter().filter(|one| !fits(one)).count();
        if missing == 0 {
            return Ok(Instant::now());
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}: {missing} of {} do not", views.len());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn half_a_line_waits_for_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::of(file.path());
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.lines().unwrap(), ["one"]);
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["two"]);
        assert!(tail.lines().unwrap().is_empty());
    }
}
