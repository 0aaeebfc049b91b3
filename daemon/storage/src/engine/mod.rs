//! The engine under the log: its interface, the one that Muster uses, and the single writer.
//!
//! Every change goes through the [`Writer`], sealed in an envelope. Knows nothing of openraft.

#[cfg(test)]
mod compat;
pub(crate) mod directory;
mod envelope;
#[cfg(test)]
mod fuzz;
mod high_water_mark;
mod sled;
mod stall;
mod store;
mod writer;

pub use directory::{DirectoryError, FORMAT, OpenError, StoreIdentity};
pub use sled::SLED;
pub use stall::DiskStall;
pub use store::{Change, Engine, KeyValue, MAX_VALUE, Store, Table};
pub use writer::Writer;
