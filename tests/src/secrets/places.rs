//! Where a secret could be seen: files, and what the system shows of processes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// `None` for what is not there any more.
pub fn there<T>(found: io::Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// Every regular file below `root`.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let Some(meta) = there(fs::symlink_metadata(&path))? else { continue };
        if meta.is_dir() {
            for entry in there(fs::read_dir(&path))?.into_iter().flatten() {
                left.push(entry?.path());
            }
        } else if meta.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether the file's own mode lets somebody else on this machine read it, wherever it lies.
pub fn is_open(file: &Path) -> Result<bool> {
    let meta = there(fs::metadata(file))?;
    Ok(meta.is_some_and(|meta| meta.permissions().mode() & 0o077 != 0))
}

/// What the system shows of the processes of these ids: arguments and environment.
pub fn processes(pids: &[u32]) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut shown = Vec::new();
    for pid in pids {
        for file in ["cmdline", "environ", "comm"] {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            shown.push((path, text));
        }
    }
    Ok(shown)
}
