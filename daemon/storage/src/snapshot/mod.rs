//! Snapshots of the state machine: the format of their files, and the directory that holds them.
//! Knows nothing of the state in them.

#[cfg(test)]
mod compat;
mod file;
#[cfg(test)]
mod fuzz;
mod store;

pub(crate) use file::snapshot_id;
pub use file::{MAX_SNAPSHOT, SnapshotBody};
pub use store::SnapshotStore;
