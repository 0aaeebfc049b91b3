//! musterd: the only crate that knows Raft. Composes discovery, init and pki into one node.

pub mod raft;
pub mod state;
