//! Vote and log of one node: openraft's log storage, its reader, and the log in memory.

mod cache;
mod codec;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod fuzz;
mod memory;
mod reader;
mod store;

pub use codec::MAX_ENTRY;
pub use reader::LogReader;
pub use store::LogStore;
