//! A node reduced to its Raft store: a life made from a seed, and what must be there afterwards.

pub mod engines;
pub mod node;
pub mod raft;
mod read;
pub mod script;

pub use node::Node;
