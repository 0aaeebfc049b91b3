//! Template for a new `node.yaml`, with comments.
//!
//! The order of the fields, their comments and examples come from the table in `fields`. This module
//! decides only which fields get a value.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::field::Entry;
use super::fields::{cluster, machine, patches};
use super::shape::{DOCUMENT_SHAPE, Map, Shape};
use super::{Operator, SecretText};

/// Contents of a new document. [`render`](Self::render) returns text that `Document::parse`
/// accepts if each part is valid.
#[derive(Debug, Clone)]
pub struct Template {
    pub cluster_name: String,
    /// 1, 3, 5 or 7.
    pub expect: u8,
    pub token: SecretText,
    pub operators: Vec<Operator>,
    pub mdns: bool,
    /// Static peers as `host:port`; if empty, an example is written as a comment.
    pub static_peers: Vec<String>,
    pub etcd_binary: Option<PathBuf>,
}

impl Template {
    /// Returns the document. It contains the token: write it to a file of mode 0600.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn render(&self) -> Zeroizing<String> {
        // Large enough never to grow: a reallocation would leave a copy of the token in memory.
        let mut text = Zeroizing::new(String::with_capacity(16 << 10));
        self.write(&mut text).expect("writing to memory does not fail");
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "# Configuration of every node of the cluster {}: the same file on each.\n\
             # It contains the shared token: keep it readable by root only (mode 0600).",
            self.cluster_name
        )?;
        for (name, shape) in DOCUMENT_SHAPE.iter() {
            writeln!(out)?;
            self.write_field(out, "", name, shape)?;
        }
        Ok(())
    }

    /// Writes a field with its comment. A field without a value becomes a comment with an example,
    /// or nothing.
    fn write_field(
        &self,
        out: &mut String,
        indent: &str,
        name: &str,
        shape: &Shape,
    ) -> fmt::Result {
        let entry = match shape {
            Shape::Map(map) => return self.write_section(out, indent, name, map),
            Shape::Value(entry)
            | Shape::MappingList { entry, .. }
            | Shape::PatchMapping { entry, .. } => entry,
        };
        match self.value(entry) {
            Some(value) => {
                writeln!(out, "{indent}# {}", entry.doc())?;
                write!(out, "{indent}{name}:")?;
                value.write(out, indent)
            }
            None => write_example(out, &format!("{indent}# "), name, entry),
        }
    }

    fn write_section(&self, out: &mut String, indent: &str, name: &str, map: &Map) -> fmt::Result {
        if self.has_value(map) {
            writeln!(out, "{indent}{name}:")?;
            let indent = format!("{indent}  ");
            return map
                .iter()
                .try_for_each(|(name, shape)| self.write_field(out, &indent, name, shape));
        }
        write_example_section(out, &format!("{indent}# "), name, map)
    }

    fn has_value(&self, map: &Map) -> bool {
        map.iter().any(|(_, shape)| match shape {
            Shape::Map(map) => self.has_value(map),
            Shape::Value(entry)
            | Shape::MappingList { entry, .. }
            | Shape::PatchMapping { entry, .. } => self.value(entry).is_some(),
        })
    }

    /// The value that a new document has for the field.
    fn value(&self, entry: &Entry) -> Option<Given<'_>> {
        let is = |path: &str| entry.path() == path;
        if is(machine::ROLE.path()) {
            Some(Given::Word("control-plane"))
        } else if is(machine::TOKEN.path()) {
            Some(Given::Text(self.token.expose()))
        } else if is(machine::MDNS.path()) {
            Some(Given::Word(if self.mdns { "true" } else { "false" }))
        } else if is(machine::STATIC_PEERS.path()) && !self.static_peers.is_empty() {
            Some(Given::Texts(&self.static_peers))
        } else if is(machine::ETCD_BINARY.path()) {
            self.etcd_binary.as_deref().map(Given::Path)
        } else if is(cluster::CLUSTER_NAME.path()) {
            Some(Given::Text(&self.cluster_name))
        } else if is(cluster::EXPECT.path()) {
            Some(Given::Number(self.expect))
        } else if is(cluster::OPERATORS.path()) {
            Some(Given::Operators(&self.operators))
        } else if is(patches::PATCHES.path()) {
            Some(Given::WorkersByName)
        } else {
            None
        }
    }
}

/// A value of a new document. Written directly, so that no copy of the token is made.
enum Given<'a> {
    Word(&'static str),
    Number(u8),
    Text(&'a str),
    Path(&'a Path),
    Texts(&'a [String]),
    Operators(&'a [Operator]),
    /// The patch that turns nodes called `worker-…` into workers.
    WorkersByName,
}

impl Given<'_> {
    /// Writes the value after its key, which has the given indentation.
    fn write(&self, out: &mut String, indent: &str) -> fmt::Result {
        match self {
            Self::Word(word) => writeln!(out, " {word}"),
            Self::Number(number) => writeln!(out, " {number}"),
            Self::Text(text) => writeln!(out, " \"{text}\""),
            Self::Path(path) => writeln!(out, " \"{}\"", escaped(path)),
            Self::Texts(texts) => {
                writeln!(out)?;
                texts.iter().try_for_each(|text| writeln!(out, "{indent}  - \"{text}\""))
            }
            Self::Operators(operators) => {
                writeln!(out)?;
                operators.iter().try_for_each(|Operator { name, key, role }| {
                    writeln!(
                        out,
                        "{indent}  - name: \"{name}\"\n\
                         {indent}    publicKey: \"{key}\"\n\
                         {indent}    role: {role}"
                    )
                })
            }
            Self::WorkersByName => writeln!(
                out,
                "\n{indent}  - match:\n\
                 {indent}      name: worker-*\n\
                 {indent}    patch:\n\
                 {indent}      machine:\n\
                 {indent}        type: worker"
            ),
        }
    }
}

/// Writes a section of which only examples are known, as a comment.
fn write_example_section(out: &mut String, prefix: &str, name: &str, map: &Map) -> fmt::Result {
    let mut below = String::new();
    for (name, shape) in map.iter() {
        let prefix = format!("{prefix}  ");
        match shape {
            Shape::Map(map) => write_example_section(&mut below, &prefix, name, map)?,
            Shape::Value(entry)
            | Shape::MappingList { entry, .. }
            | Shape::PatchMapping { entry, .. } => {
                write_example(&mut below, &prefix, name, entry)?;
            }
        }
    }
    if below.is_empty() { Ok(()) } else { write!(out, "{prefix}{name}:\n{below}") }
}

/// Writes `# name: example   # doc`, if the field has an example.
fn write_example(out: &mut String, prefix: &str, name: &str, entry: &Entry) -> fmt::Result {
    if entry.example().is_empty() {
        return Ok(());
    }
    let field = format!("{prefix}{name}: {}", entry.example());
    writeln!(out, "{field:<36} # {}", entry.doc())
}

/// Escapes a path for a double-quoted YAML scalar.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"")
}
