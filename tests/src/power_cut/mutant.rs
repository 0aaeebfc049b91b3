//! Mutants of a program: the same program without one part of its durability discipline. A sync
//! changes nothing that the program can see. So the mutant's trace is the original with some syncs
//! removed or moved.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Event, Trace};

/// Part of the discipline that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// No file is ever synced.
    NoFileSync,
    /// No directory is ever synced.
    NoDirectorySync,
    /// An operation is acknowledged before its last sync.
    AckBeforeSync,
    /// A file is renamed before it is synced.
    RenameBeforeSync,
}

impl Mutation {
    pub const ALL: [Self; 4] =
        [Self::NoFileSync, Self::NoDirectorySync, Self::AckBeforeSync, Self::RenameBeforeSync];
}

impl Trace {
    /// Returns the trace of this mutant. `is_acknowledgement` selects the lines that acknowledge an
    /// operation.
    #[must_use]
    pub fn mutated(&self, mutation: Mutation, is_acknowledgement: impl Fn(&str) -> bool) -> Self {
        let mut trace = self.clone();
        let events = &mut trace.events;
        match mutation {
            Mutation::NoFileSync => drop_syncs(events, |is_file| is_file),
            Mutation::NoDirectorySync => drop_syncs(events, |is_file| !is_file),
            Mutation::AckBeforeSync => ack_before_sync(events, is_acknowledgement),
            Mutation::RenameBeforeSync => rename_before_sync(events),
        }
        trace
    }

    /// Returns the numbers of the events before which a cut must show the mutation.
    pub fn cut_points(
        &self,
        mutation: Mutation,
        is_acknowledgement: impl Fn(&str) -> bool,
    ) -> Vec<usize> {
        let is_cut_point = |event: &Event| match (mutation, event) {
            (Mutation::RenameBeforeSync, Event::Rename { .. }) => true,
            (Mutation::RenameBeforeSync, _) => false,
            (_, Event::Line(line)) => is_acknowledgement(line),
            _ => false,
        };
        (1..=self.events.len()).filter(|at| is_cut_point(&self.events[at - 1])).collect()
    }
}

fn drop_syncs(events: &mut [Event], drops: impl Fn(bool) -> bool) {
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for event in events {
        match event {
            Event::MakeFile(path) => {
                files.insert(path.clone());
            }
            Event::Rename { from, to } => {
                files = files.iter().map(|file| path_after_rename(file, from, to)).collect();
            }
            Event::Sync { path, .. } if drops(files.contains(path)) => *event = Event::Nothing,
            _ => {}
        }
    }
}

/// Returns a file's path after a rename of the file, or of a directory around it.
fn path_after_rename(file: &Path, from: &Path, to: &Path) -> PathBuf {
    match file.strip_prefix(from) {
        Ok(rest) if rest == Path::new("") => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => file.to_owned(),
    }
}

fn ack_before_sync(events: &mut [Event], is_acknowledgement: impl Fn(&str) -> bool) {
    let mut last_sync = None;
    for at in 0..events.len() {
        match &events[at] {
            Event::Sync { .. } => last_sync = Some(at),
            Event::Line(line) => {
                if let (true, Some(sync)) = (is_acknowledgement(line), last_sync) {
                    events.swap(sync, at);
                }
                last_sync = None;
            }
            _ => {}
        }
    }
}

fn rename_before_sync(events: &mut [Event]) {
    for at in 0..events.len() {
        let Event::Rename { from, to } = events[at].clone() else { continue };
        let synced = |event: &Event| matches!(event, Event::Sync { path, .. } if *path == from);
        if let Some(sync) = events[..at].iter().rposition(synced) {
            events[sync] = events[at].clone();
            events[at] = Event::Sync { path: to, begun: sync };
        }
    }
}
