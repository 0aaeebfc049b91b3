//! Files in which a secret could be visible.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;

/// Returns `None` for a file that no longer exists.
pub fn if_exists<T>(found: io::Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// Returns every regular file below `root`.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let Some(meta) = if_exists(fs::symlink_metadata(&path))? else { continue };
        if meta.is_dir() {
            for entry in if_exists(fs::read_dir(&path))?.into_iter().flatten() {
                left.push(entry?.path());
            }
        } else if meta.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Returns true if the file's mode gives access to group or others, regardless of its directory.
pub fn is_readable_by_others(file: &Path) -> Result<bool> {
    let meta = if_exists(fs::metadata(file))?;
    Ok(meta.is_some_and(|meta| meta.permissions().mode() & 0o077 != 0))
}

/// Directories in which programs leave temporary files.
const SHARED_DIRECTORIES: [&str; 4] = ["/tmp", "/run", "/var/tmp", "/dev/shm"];

/// Maximum number of bytes read from one file.
const MAX_READ: u64 = 8 << 20;

/// Returns files in shared directories that were changed since `since`. Leaves out `own`, build
/// directories and directories of other tests.
pub fn changed_since(since: SystemTime, own: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut left: BTreeSet<PathBuf> = SHARED_DIRECTORIES.iter().map(PathBuf::from).collect();
    left.insert(std::env::temp_dir());
    while let Some(path) = left.pop_last() {
        // A file that cannot be read has gone, or belongs to the kernel.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() && path != own && !is_ignored(&path) {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        } else if meta.is_file() && changed(&meta)? >= since {
            let Ok(file) = File::open(&path) else { continue };
            let mut bytes = Vec::new();
            if file.take(MAX_READ).read_to_end(&mut bytes).is_ok() {
                found.push((path, bytes));
            }
        }
    }
    Ok(found)
}

fn is_ignored(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("muster-lab-")
        || name.starts_with("muster-loopback-")
        || directory.join("CACHEDIR.TAG").exists()
}

/// Returns the time at which a file was last written, or got this name.
fn changed(meta: &fs::Metadata) -> Result<SystemTime> {
    let moved = Duration::new(meta.ctime().try_into()?, meta.ctime_nsec().try_into()?);
    Ok(meta.modified()?.max(SystemTime::UNIX_EPOCH + moved))
}
