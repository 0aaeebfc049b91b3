//! Private files of a user, written atomically: each is either complete or absent.
//!
//! Several `musterctl` may write one file at the same time, so each uses a temporary name of its own.
//! (`muster_files` uses one name per file, for a node's only writer.) Knows no file's content.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use muster_files::{PRIVATE_MODE, WriteError};
use tempfile::NamedTempFile;

/// Error of a file operation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{} already exists; nothing was written\ntry: remove it, or use another path", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} is a device or a pipe, not a regular file; nothing was written\n\
         try: a path of a new file, or `-` for standard output where the command takes it",
        .0.display()
    )]
    NotRegular(PathBuf),
    #[error("the directory {} does not exist; nothing was written", .0.display())]
    NoDirectory(PathBuf),
    #[error(transparent)]
    CreateDirectory(#[from] WriteError),
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is too large: more than {max} bytes", path.display())]
    TooLarge { path: PathBuf, max: usize },
    #[error("remove {}", .0.display())]
    Remove(PathBuf, #[source] io::Error),
    /// One of several files could not be written, and some of the others could not be removed again.
    #[error(
        "write {} ({why})\n\
         files that were written before it and could not be removed: {}\n\
         try: remove them, then run the command again",
        target.display(),
        list(left)
    )]
    LeftBehind { target: PathBuf, why: String, left: Vec<PathBuf> },
}

impl FileError {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Read(_, error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Creates a directory and its parents, with access for this user only.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), FileError> {
    Ok(muster_files::create_private_directory(path)?)
}

/// Reads a text file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: usize) -> Result<zeroize::Zeroizing<String>, FileError> {
    let failed = |e| FileError::Read(path.to_owned(), e);
    let mut text = zeroize::Zeroizing::new(String::with_capacity(max.min(64 << 10)));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(limit).read_to_string(&mut text).map_err(failed)?;
    if text.len() > max {
        return Err(FileError::TooLarge { path: path.to_owned(), max });
    }
    Ok(text)
}

/// A file being written under a temporary name next to its target, until [`PendingFile::commit`].
pub(crate) struct PendingFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl PendingFile {
    /// Creates the temporary file with mode 0600. Fails if the target exists.
    pub(crate) fn create(target: &Path) -> Result<Self, FileError> {
        if target.symlink_metadata().is_ok() {
            let is_special = target.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir());
            let error = if is_special { FileError::NotRegular } else { FileError::Exists };
            return Err(error(target.to_owned()));
        }
        Self::create_temporary(target)
    }

    fn create_temporary(target: &Path) -> Result<Self, FileError> {
        let file = tempfile::Builder::new()
            .prefix(".musterctl-")
            .permissions(Permissions::from_mode(PRIVATE_MODE))
            .tempfile_in(parent(target))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => FileError::NoDirectory(parent(target).to_owned()),
                // The error's own text has the temporary name.
                kind => FileError::Write(target.to_owned(), kind.into()),
            })?;
        Ok(Self { file, target: target.to_owned() })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|e| FileError::Write(self.target.clone(), e))
    }

    /// Syncs the file and renames it to its target. Fails if the target exists by now.
    pub(crate) fn commit(self) -> Result<(), FileError> {
        let target = self.target.clone();
        self.persist().map_err(|error| create_error(target, error))
    }

    fn persist(self) -> io::Result<()> {
        let Self { file, target } = self;
        file.as_file().sync_all()?;
        file.persist_noclobber(&target).map_err(|e| e.error)?;
        Ok(muster_files::sync_directory(parent(&target))?)
    }

    fn replace(self) -> Result<(), FileError> {
        let Self { file, target } = self;
        file.as_file().sync_all().map_err(|e| FileError::Write(target.clone(), e))?;
        file.persist(&target).map_err(|e| FileError::Write(target.clone(), e.error))?;
        let synced = muster_files::sync_directory(parent(&target));
        synced.map_err(|e| FileError::Write(target, e.into()))
    }
}

/// Error of creating a file that must not exist yet.
fn create_error(target: PathBuf, error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists(target),
        _ => FileError::Write(target, error),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file with mode 0600, replacing an existing one.
pub(crate) fn replace(target: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut pending = PendingFile::create_temporary(target)?;
    pending.write(bytes)?;
    pending.replace()
}

/// Replaces several files, each atomically, after all of them could be written.
pub(crate) fn replace_all(files: &[(PathBuf, &[u8])]) -> Result<(), FileError> {
    let mut pending = Vec::with_capacity(files.len());
    for (target, bytes) in files {
        let mut file = PendingFile::create_temporary(target)?;
        file.write(bytes)?;
        pending.push(file);
    }
    pending.into_iter().try_for_each(PendingFile::replace)
}

/// Creates several files with mode 0600: all of them or none. None may exist yet.
pub(crate) fn create_all(files: &[(PathBuf, &[u8])]) -> Result<(), FileError> {
    let mut pending = Vec::with_capacity(files.len());
    for (target, bytes) in files {
        let mut file = PendingFile::create(target)?;
        file.write(bytes)?;
        pending.push(file);
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for file in pending {
        let target = file.target.clone();
        if let Err(error) = file.persist() {
            return Err(undo(written, target, error));
        }
        written.push(target);
    }
    Ok(())
}

/// Removes the files that were written before `target` failed. Returns the error to report.
fn undo(mut written: Vec<PathBuf>, target: PathBuf, error: io::Error) -> FileError {
    // The target itself may be in place, without its directory being synced.
    if error.kind() != io::ErrorKind::AlreadyExists {
        written.push(target.clone());
    }
    written.retain(|path| remove(path).is_err());
    if written.is_empty() {
        return create_error(target, error);
    }
    FileError::LeftBehind { target, why: error.to_string(), left: written }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Removes a file if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Remove(path.to_owned(), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens a child process's log for appending, with mode 0600.
pub(crate) fn open_log(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(PRIVATE_MODE)
        .open(path)
        .map_err(|e| FileError::Write(path.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn of_several_files_all_are_written_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("b"), "mine").unwrap();
        let error = create_all(&[(at("a"), b"1".as_slice()), (at("b"), b"2"), (at("c"), b"3")])
            .unwrap_err();
        assert!(matches!(&error, FileError::Exists(path) if path == &at("b")), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
        assert_eq!(fs::read(at("b")).unwrap(), b"mine");

        create_all(&[(at("a"), b"1".as_slice()), (at("c"), b"3")]).unwrap();
        assert_eq!((mode(&at("a")), mode(&at("c"))), (0o600, 0o600));
    }

    #[test]
    fn files_that_were_written_before_another_failed_are_removed_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Both are absent at first, so the second one fails only when the first is in place.
        let error = create_all(&[(at("a"), b"1".as_slice()), (at("a"), b"2")]).unwrap_err();
        assert!(error.to_string().contains("a already exists; nothing was written"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        // Regression: the error said that nothing was written, though the clean-up had failed.
        fs::create_dir(at("stays")).unwrap();
        fs::write(at("goes"), "1").unwrap();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = undo(vec![at("stays"), at("goes")], at("b"), full);
        assert!(matches!(&error, FileError::LeftBehind { left, .. } if *left == [at("stays")]));
        let text = error.to_string();
        assert!(!text.contains("nothing was written"), "{text}");
        assert!(text.contains("b (no storage space)") && text.contains("stays\ntry: "), "{text}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, [b'x'; 11]).unwrap();
        assert!(matches!(read(&path, 10), Err(FileError::TooLarge { .. })));
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        assert!(read(&dir.path().join("y"), 1).unwrap_err().is_missing());
    }

    #[test]
    fn replacing_keeps_the_mode_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (&b"new"[..], 0o600));
    }

    /// Every `members` may save what it learned, and a script may run several at once.
    #[test]
    fn writers_at_the_same_time_leave_one_complete_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context.yaml");
        let texts: Vec<String> = ('a'..='d').map(|c| c.to_string().repeat(50_000)).collect();
        std::thread::scope(|scope| {
            for text in &texts {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, text.as_bytes()).unwrap();
                        let found = fs::read_to_string(path).unwrap();
                        assert!(found.len() == 50_000 && found.starts_with(&found[49_999..]));
                    }
                });
            }
        });
        assert!(texts.contains(&fs::read_to_string(&path).unwrap()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
