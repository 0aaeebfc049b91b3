//! The secrets of a run, every form in which one could be written, and a search for all of them at
//! once.

mod capture;
mod forms;
mod places;

pub use capture::Capture;
pub use forms::{Found, Search, Secret};
pub use places::{files, is_open, processes, there};
