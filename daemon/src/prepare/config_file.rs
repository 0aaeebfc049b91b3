//! The configuration file: reads it, and rejects one that other users can read. Its contents are
//! checked by `muster_config`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use muster_config::{Document, MAX_BYTES};
use muster_init::facts;
use muster_types::NodeName;

use crate::fatal::Fatal;

/// Returns the text of the configuration file.
pub(super) fn read(path: &Path) -> Result<String, Fatal> {
    let read = |source| Fatal::ReadConfig { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Fatal::Machine(format!(
            "the configuration {} has mode {mode:04o}, so other users can read the token in it; if \
             none has, run `chmod 0600` on it",
            path.display()
        )));
    }
    // Reads one byte more than allowed, so that the parser reports a file that is too long.
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let file = fs::File::open(path).map_err(read)?;
    io::read_to_string(io::Read::take(file, limit)).map_err(read)
}

/// Returns the name of this node: the given one, the document's, or the host name up to its first dot.
pub(super) fn node_name(given: Option<&NodeName>, document: &Document) -> Result<NodeName, Fatal> {
    if let Some(name) = given.cloned().or_else(|| document.hostname()) {
        return Ok(name);
    }
    let host = facts::hostname();
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    label.parse().map_err(|error| {
        Fatal::Machine(format!("cannot use the host name as node name: {error}; give --name"))
    })
}
