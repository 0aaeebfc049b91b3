//! `node.yaml`: the document shared by all nodes of a cluster, and the effective configuration of
//! one node.
//!
//! Text in, plain data out: this module opens no file, reads no clock and resolves no name. All
//! problems of a document are reported at once, each with its dotted path and line.
//!
//! The table in `fields` has one entry per field. Everything else follows from it.

mod check;
mod checked;
#[cfg(test)]
mod docs;
mod document;
mod effective;
mod field;
mod fields;
#[cfg(test)]
mod fuzz;
mod json_schema;
mod kind;
mod leaf;
mod limits;
mod patches;
mod pattern;
mod problem;
mod rules;
mod secret;
mod shape;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use document::Document;
pub use effective::{Cluster, Config, Discovery, Dns, Etcd, Network, Operator};
pub use field::{Disturbs, Entry, Patchable, Unit};
pub use fields::fields;
pub use json_schema::json_schema;
pub use limits::{MAX_BYTES, MAX_OPERATORS};
pub use problem::{ConfigError, Problem};
pub use secret::SecretText;
pub use template::Template;
pub use value::Subnet;

/// Default state directory; the document or `--state-dir` overrides it.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/muster";
