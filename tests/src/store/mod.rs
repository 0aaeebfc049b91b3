//! A node reduced to its Raft store: operations from a seed, and the contents that must be there
//! afterwards.

pub mod engines;
pub mod node;
pub mod raft;
mod read;
pub mod script;

pub use node::Node;
