//! Locates the `musterd` program.

use std::env;
use std::path::{Path, PathBuf};

/// Error of locating `musterd`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("MUSTERD names {}, which is not a file", .0.display())]
    Named(PathBuf),
    #[error(
        "musterd not found next to musterctl ({sibling}) or on the PATH\n\
         try: build it, or set MUSTERD to its path"
    )]
    Missing { sibling: String },
}

/// Returns `$MUSTERD`, else the one next to this program, else the one on the PATH.
pub(crate) fn musterd() -> Result<PathBuf, ProgramError> {
    if let Some(named) = env::var_os("MUSTERD").filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() { Ok(named) } else { Err(ProgramError::Named(named)) };
    }
    let sibling = env::current_exe().ok().and_then(|me| Some(me.parent()?.join("musterd")));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|directory| directory.join("musterd"));
    let found = sibling.iter().cloned().chain(on_path).find(|program| program.is_file());
    let sibling = || {
        let directory = sibling.as_deref().and_then(Path::parent);
        directory.map_or_else(|| "unknown".to_owned(), |path| path.display().to_string())
    };
    found.ok_or_else(|| ProgramError::Missing { sibling: sibling() })
}
