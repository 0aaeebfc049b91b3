//! The secrets of a run, every form in which one could be written, and a search for all of them at
//! once.

mod capture;
mod commands;
mod forms;
mod places;
mod watch;

pub use capture::Capture;
pub use commands::commands;
pub use forms::{Found, Search, Secret};
pub use places::{elsewhere, files, is_open, there};
pub use watch::Watch;
