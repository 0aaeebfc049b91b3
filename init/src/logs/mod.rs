//! Output of supervised processes: kept in files of bounded size, with the last lines in memory.

mod lines;
mod rotating;

pub use lines::LastLines;
pub use rotating::RotatingFile;

use std::path::PathBuf;

/// Path and retention of one process's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The current file; older ones have `.1`, `.2`, … appended to the name.
    pub path: PathBuf,
    /// Size in bytes at which the file is rotated.
    pub max_bytes: u64,
    /// Number of older files kept.
    pub keep: u8,
}

impl LogConfig {
    /// The default limits: 8 MiB and one older file.
    pub fn new(path: PathBuf) -> Self {
        Self { path, max_bytes: 8 << 20, keep: 1 }
    }
}
