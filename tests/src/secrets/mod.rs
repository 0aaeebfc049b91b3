//! The secrets of a run, every encoding in which one could be written, and a search for all of them
//! at once.

mod capture;
mod commands;
mod encodings;
mod files;

mod process_watch;

pub use capture::Capture;
pub use commands::commands;
pub use encodings::{Match, Search, Secret};
pub use files::{changed_since, files, if_exists, is_readable_by_others};
pub use process_watch::ProcessWatch;
