//! What the same program would have done with one part of its discipline left out. Syncing changes
//! nothing that a program can see, so the tape of a careful victim becomes that of a careless one by
//! leaving out its syncs, or putting them later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Event, Tape};

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Careless {
    /// No file is ever synced.
    NoFileSync,
    /// No directory is ever synced.
    NoDirectorySync,
    /// What was asked is acknowledged before the last sync for it, not after.
    AcknowledgesFirst,
    /// A file takes its place under its name before it is synced, not after.
    RenamesFirst,
}

impl Careless {
    pub const ALL: [Self; 4] =
        [Self::NoFileSync, Self::NoDirectorySync, Self::AcknowledgesFirst, Self::RenamesFirst];
}

impl Tape {
    /// The tape of a victim that is careless in this way. `is_promise` tells which lines acknowledge
    /// something.
    #[must_use]
    pub fn of_careless(&self, how: Careless, is_promise: impl Fn(&str) -> bool) -> Self {
        let mut tape = self.clone();
        let events = &mut tape.events;
        match how {
            Careless::NoFileSync => forget_syncs(events, |is_file| is_file),
            Careless::NoDirectorySync => forget_syncs(events, |is_file| !is_file),
            Careless::AcknowledgesFirst => acknowledge_first(events, is_promise),
            Careless::RenamesFirst => rename_first(events),
        }
        tape
    }

    /// Where the difference shows: the numbers of events before which to cut.
    pub fn weak_points(&self, how: Careless, is_promise: impl Fn(&str) -> bool) -> Vec<usize> {
        let weak = |event: &Event| match (how, event) {
            (Careless::RenamesFirst, Event::Rename { .. }) => true,
            (Careless::RenamesFirst, _) => false,
            (_, Event::Said(line)) => is_promise(line),
            _ => false,
        };
        (1..=self.events.len()).filter(|at| weak(&self.events[at - 1])).collect()
    }
}

fn forget_syncs(events: &mut [Event], forgets: impl Fn(bool) -> bool) {
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for event in events {
        match event {
            Event::MakeFile(path) => {
                files.insert(path.clone());
            }
            Event::Rename { from, to } => {
                files = files.iter().map(|file| moved(file, from, to)).collect();
            }
            Event::Sync { path, .. } if forgets(files.contains(path)) => *event = Event::Nothing,
            _ => {}
        }
    }
}

/// Where a file is once `from`, itself or a directory around it, has become `to`.
fn moved(file: &Path, from: &Path, to: &Path) -> PathBuf {
    match file.strip_prefix(from) {
        Ok(rest) if rest == Path::new("") => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => file.to_owned(),
    }
}

fn acknowledge_first(events: &mut [Event], is_promise: impl Fn(&str) -> bool) {
    let mut last_sync = None;
    for at in 0..events.len() {
        match &events[at] {
            Event::Sync { .. } => last_sync = Some(at),
            Event::Said(line) => {
                if let (true, Some(sync)) = (is_promise(line), last_sync) {
                    events.swap(sync, at);
                }
                last_sync = None;
            }
            _ => {}
        }
    }
}

fn rename_first(events: &mut [Event]) {
    for at in 0..events.len() {
        let Event::Rename { from, to } = events[at].clone() else { continue };
        let synced = |event: &Event| matches!(event, Event::Sync { path, .. } if *path == from);
        if let Some(sync) = events[..at].iter().rposition(synced) {
            events[sync] = events[at].clone();
            events[at] = Event::Sync { path: to, begun: sync };
        }
    }
}
