//! What supervised processes print: kept in files of bounded size, the last lines at hand.

mod lines;
mod rotating;

pub use lines::LastLines;
pub use rotating::Rotating;

use std::path::PathBuf;

/// Where a process's output goes and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The current file; older ones get `.1`, `.2`, … behind their name.
    pub path: PathBuf,
    /// Bytes after which the next file is begun.
    pub limit: u64,
    /// How many older files are kept.
    pub keep: u8,
}

impl Place {
    /// The usual bounds: 8 MiB and one older file.
    pub fn new(path: PathBuf) -> Self {
        Self { path, limit: 8 << 20, keep: 1 }
    }
}
