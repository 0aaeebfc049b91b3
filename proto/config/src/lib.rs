//! `node.yaml`: the one document that every node of a cluster reads, and what a single node gets
//! from it.
//!
//! Text comes in, plain data goes out: this module opens no file, asks no clock and resolves no
//! name. Every problem of a document is reported at once, with its dotted path and its line.

mod check;
mod document;
mod effective;
mod pattern;
mod problem;
mod schema;
mod secret;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use document::{Document, MAX_BYTES};
pub use effective::{Cluster, Config, Discovery, Dns, Etcd, Network, Operator};
pub use problem::{ConfigError, Problem};
pub use secret::SecretText;
pub use template::Template;
pub use value::Subnet;

/// Where a node keeps its state unless the document or `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/muster";

/// How many operators a document may name. Their keys travel with every greeting before birth.
pub const MAX_OPERATORS: usize = 16;
