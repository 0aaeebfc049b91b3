//! Atomic file replacement: after a crash or power cut a file is the old one or the new one. Reads
//! no file's content and knows no format.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of a node's files: readable by the owner only.
pub const PRIVATE_MODE: u32 = 0o600;

/// A failed write; the old file, if any, is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct WriteError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl From<WriteError> for io::Error {
    /// The same text as one error of the same kind.
    fn from(error: WriteError) -> Self {
        Self::new(error.source.kind(), format!("{error}: {}", error.source))
    }
}

impl WriteError {
    fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// Replaces the file: writes a temporary file with the given mode, syncs it, renames it over `path`
/// and syncs the directory. Once this returns, it survives a power cut. One writer per path.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    replace_with_parts(path, &[bytes], mode)
}

/// [`replace`]s the file by the concatenated parts.
pub fn replace_with_parts(path: &Path, parts: &[&[u8]], mode: u32) -> Result<(), WriteError> {
    let mut file = PendingFile::create(path, mode)?;
    parts.iter().try_for_each(|part| file.write(part))?;
    file.commit()
}

/// A file that is being written under its [`temporary_path`]. Dropping it removes it.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    is_committed: bool,
}

impl PendingFile {
    /// Creates the temporary file with the given mode.
    pub fn create(path: &Path, mode: u32) -> Result<Self, WriteError> {
        let temporary = temporary_path(path);
        // A left-over of an earlier attempt may have another mode: never reuse it.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(WriteError::on("remove the left-over", &temporary)(e));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(WriteError::on("create", &temporary))?;
        let pending = Self { file, temporary, path: path.to_owned(), is_committed: false };
        // The umask masks the mode given at creation.
        let set = pending.file.set_permissions(Permissions::from_mode(mode));
        set.map_err(WriteError::on("write", &pending.temporary))?;
        Ok(pending)
    }

    /// Appends to the file. Does not sync.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(WriteError::on("write", &self.temporary))
    }

    /// Syncs the file, renames it into place and syncs the directory.
    pub fn commit(mut self) -> Result<(), WriteError> {
        self.file.sync_all().map_err(WriteError::on("write", &self.temporary))?;
        rename_into_place(&self.temporary, &self.path)?;
        self.is_committed = true;
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // The next attempt removes what cannot be removed now.
            fs::remove_file(&self.temporary).ok();
        }
    }
}

/// [`replace`]s the file unless it already has these bytes and this mode.
pub fn replace_if_changed(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let is_current = || -> io::Result<bool> {
        let meta = fs::symlink_metadata(path)?;
        let plain = meta.is_file() && meta.permissions().mode() & 0o7777 == mode;
        Ok(plain
            && meta.len() == bytes.len() as u64
            && Zeroizing::new(fs::read(path)?)[..] == *bytes)
    };
    if is_current().unwrap_or(false) { Ok(()) } else { replace(path, bytes, mode) }
}

/// Renames a complete, synced file or directory into place and syncs the parent directory.
pub fn rename_into_place(from: &Path, to: &Path) -> Result<(), WriteError> {
    fs::rename(from, to).map_err(WriteError::on("rename into place", to))?;
    sync_parent(to)
}

/// Syncs every file below a directory, and the directory itself.
pub fn sync_tree(directory: &Path) -> Result<(), WriteError> {
    let failed = || WriteError::on("list", directory);
    for entry in fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(WriteError::on("sync", &path))?;
        }
    }
    sync_directory(directory)
}

/// Makes the entry of this path in its directory survive a power cut.
pub fn sync_parent(path: &Path) -> Result<(), WriteError> {
    sync_directory(parent(path))
}

/// Makes entries created, renamed or removed in a directory survive a power cut.
pub fn sync_directory(directory: &Path) -> Result<(), WriteError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(WriteError::on("sync directory", directory))
}

/// Creates the directory and its missing parents, readable by the owner only (0700), and syncs the
/// directory of each. Leaves an existing directory unchanged.
pub fn create_private_directory(path: &Path) -> Result<(), WriteError> {
    let is_missing = |p: &&Path| !p.as_os_str().is_empty() && !p.is_dir();
    let created: Vec<_> = path.ancestors().take_while(is_missing).collect();
    if created.is_empty() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(WriteError::on("create directory", path))?;
    created.into_iter().try_for_each(sync_parent)
}

/// Temporary path for the new file: hidden, in the same directory, one per file name.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_mode_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "old").unwrap();
        fs::write(temporary_path(&path), "torn").unwrap();
        replace(&path, b"new", PRIVATE_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_left_over_is_removed_and_an_abandoned_file_leaves_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let left_over = temporary_path(&path);
        fs::write(&left_over, "torn").unwrap();
        fs::set_permissions(&left_over, Permissions::from_mode(0o644)).unwrap();
        let mut pending = PendingFile::create(&path, PRIVATE_MODE).unwrap();
        pending.write(b"half").unwrap();
        let meta = fs::metadata(&left_over).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (PRIVATE_MODE, 4));
        drop(pending);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// Two files once shared one temporary name, because only their extension differs.
    #[test]
    fn each_file_name_has_its_own_temporary_path() {
        let temporary = |name| temporary_path(Path::new(name));
        assert_ne!(temporary("dir/a.x"), temporary("dir/a.y"));
        assert_eq!(temporary("dir/a.x").parent(), Some(Path::new("dir")));
    }

    #[test]
    fn parts_are_concatenated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        replace_with_parts(&path, &[b"a", b"", b"bc"], PRIVATE_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        sync_tree(directory.path()).unwrap();
    }

    #[test]
    fn a_kept_file_is_written_only_when_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let inode = || fs::metadata(&path).unwrap().ino();
        replace_if_changed(&path, b"one", PRIVATE_MODE).unwrap();
        let first = inode();
        replace_if_changed(&path, b"one", PRIVATE_MODE).unwrap();
        assert_eq!(inode(), first);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        replace_if_changed(&path, b"one", PRIVATE_MODE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE_MODE);
        replace_if_changed(&path, b"two", PRIVATE_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    /// etcd's CA file was rewritten with every Raft command, because its mode never was the
    /// requested one.
    #[test]
    fn a_mode_that_the_umask_forbids_is_given_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority");
        replace(&path, b"one", 0o666).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o666);
        replace_if_changed(&path, b"one", 0o666).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), meta.ino());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/key");
        let error = replace(&path, b"new", PRIVATE_MODE).unwrap_err();
        assert!(error.to_string().contains("missing/.key.new"), "{error}");
    }

    #[test]
    fn private_directories_are_for_the_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create_private_directory(&path).unwrap();
        create_private_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
