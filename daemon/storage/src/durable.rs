//! Files that are complete or absent after a power cut: written to a temporary path, synced and
//! renamed, and the directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Converts an I/O error into a [`StoreError`] that names the action and the path.
pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

/// Makes entries created or removed in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error("sync directory", dir))
}

/// Creates `dir` (mode 0700) durably. Its parent must exist.
pub(super) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(e) => return Err(io_error("create directory", dir)(e)),
    }
    sync_dir(dir)?;
    sync_dir(parent(dir))
}

/// Writes the concatenated `parts` to the file at `path` (mode 0600), replacing any previous file.
pub(super) fn write_file(path: &Path, parts: &[&[u8]]) -> Result<(), StoreError> {
    let temporary = temporary_path(path);
    let write = |file: &mut File| -> io::Result<()> {
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io_error("create", &temporary))?;
    write(&mut file).map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename into place", path))?;
    sync_dir(parent(path))
}

/// Syncs every file below `dir` and `dir` itself.
pub(super) fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|f| f.sync_all()).map_err(io_error("sync", &path))?;
        }
    }
    sync_dir(dir)
}

/// Temporary path for writing `path`; a leftover can be deleted.
pub(super) fn temporary_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}
