//! `node.yaml`: the document shared by all nodes of a cluster, and the effective configuration of
//! one node.
//!
//! Text in, plain data out: this module opens no file, reads no clock and resolves no name. All
//! problems of a document are reported at once, each with its dotted path and line.

mod check;
mod document;
mod effective;
#[cfg(test)]
mod fuzz;
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

/// Default state directory; the document or `--state-dir` overrides it.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/muster";

/// Most operators in a document. Their keys are part of every greeting before birth.
pub const MAX_OPERATORS: usize = 16;
