//! The Raft group: what its members agree on, and how that survives.

pub mod store;
pub mod types;

pub use types::TypeConfig;
