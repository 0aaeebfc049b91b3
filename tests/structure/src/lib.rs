//! Checks of the source tree: module cycles, crate layers, prose, file sizes, references to files
//! and headings, and the contract in the `.proto` files. It reads the tree only, so it needs no
//! root and no built binary. It does not check behaviour.

pub mod contract;
pub mod cycles;
mod imports;
pub mod layers;
mod modules;
pub mod prose;
pub mod references;

use std::path::{Path, PathBuf};

/// Root of the workspace.
pub fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}

/// `path` relative to the root of the workspace, for messages.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}
