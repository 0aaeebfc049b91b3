//! The directory of a node's persistent state. Owns its layout, permissions, format version and
//! lock. Rejects an unknown layout before it changes anything.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use muster_types::format::NewerFormat;
use rustix::fs::{FlockOperation, flock};

use crate::fatal::Fatal;

/// Format version that this build reads and writes. A directory with a higher one is rejected.
const FORMAT: u32 = 1;

/// Name of the file that a running `musterd` holds locked.
const LOCK: &str = "lock";

/// Entries allowed in a directory without `format`: from a new file system or an interrupted first
/// start.
const LEFT_BY_INTERRUPTED_START: [&str; 3] = ["lost+found", LOCK, ".format.new"];

/// A valid state directory. The lock is released on drop.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Checks the directory without changing it. `Ok` if it is valid or does not exist yet.
    pub fn check(path: &Path) -> Result<(), Fatal> {
        let problem = |problem: String| Fatal::StateDir { path: path.to_owned(), problem };
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(problem(format!("cannot inspect it: {error}"))),
        };
        // A link to a directory, such as one on another disk, is followed.
        let meta = if meta.is_symlink() { fs::metadata(path) } else { Ok(meta) };
        let meta = meta.map_err(|error| problem(format!("cannot follow the link: {error}")))?;
        if !meta.is_dir() {
            return Err(problem("it is not a directory; give another with --state-dir".into()));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            return Err(problem(format!(
                "it belongs to user {} but musterd runs as user {me}; run `chown -R {me}` on it or \
                 start musterd as its owner",
                meta.uid()
            )));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(problem(format!(
                "its mode is {mode:04o}, so other users can read the cluster's keys; if none has, \
                 run `chmod 0700` on it"
            )));
        }
        match fs::read_to_string(path.join("format")) {
            // A later version may add lines.
            Ok(text) => match text.lines().next().unwrap_or_default().trim().parse::<u32>() {
                Ok(found) => NewerFormat::check(found, FORMAT)
                    .map_err(|newer| problem(format!("it was {newer}"))),
                Err(_) => Err(problem("its file `format` does not begin with a number".into())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(path).map_err(|e| problem(e.to_string()))?;
                let foreign = |entry: &fs::DirEntry| {
                    !LEFT_BY_INTERRUPTED_START.iter().any(|name| entry.file_name() == *name)
                };
                match entries.find_map(|entry| entry.ok().filter(foreign)) {
                    Some(entry) => Err(problem(format!(
                        "it contains {} but no file `format`, so it is not a state directory of \
                         Muster; give an empty one with --state-dir",
                        entry.file_name().display()
                    ))),
                    None => Ok(()),
                }
            }
            Err(error) => Err(problem(format!("cannot read its file `format`: {error}"))),
        }
    }

    /// Rejects a directory that a running `musterd` holds locked. Changes nothing.
    pub fn check_not_in_use(path: &Path) -> Result<(), Fatal> {
        // No lock file: no musterd runs. `open` reports other problems of the file.
        let Ok(lock) = File::open(path.join(LOCK)) else { return Ok(()) };
        flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|_| in_use(path))
    }

    /// Creates the directory if it does not exist, and locks it.
    pub fn open(path: &Path) -> Result<Self, Fatal> {
        Self::check(path)?;
        let problem = |what: &str, error: io::Error| Fatal::StateDir {
            path: path.to_owned(),
            problem: format!("{what}: {error}"),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| problem("cannot create it", e))?;
        sync_with_ancestors(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|e| problem("cannot open its lock file", e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| in_use(path))?;
        let dir = Self { path: path.to_owned(), _lock: lock };
        if !path.join("format").exists() {
            let text = format!("{FORMAT}\n");
            muster_files::replace(
                &path.join("format"),
                text.as_bytes(),
                muster_files::PRIVATE_MODE,
            )
            .map_err(|e| Fatal::StateDir {
                path: path.to_owned(),
                problem: muster_types::error::chain(&e),
            })?;
        }
        Ok(dir)
    }

    /// Path of the node's Ed25519 key (PKCS #8).
    pub fn identity(&self) -> PathBuf {
        Self::identity_in(&self.path)
    }

    /// Same path, for a directory that is not open.
    pub fn identity_in(path: &Path) -> PathBuf {
        path.join("identity.key")
    }

    /// Path of the directory. The birth record lies directly in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the membership file ([`crate::membership`]).
    pub fn membership(&self) -> PathBuf {
        Self::membership_in(&self.path)
    }

    /// Same path, for a directory that is not open.
    pub fn membership_in(path: &Path) -> PathBuf {
        path.join("membership.json")
    }

    /// Path of the restore marker ([`crate::restore`]).
    pub fn restore_in(path: &Path) -> PathBuf {
        path.join("restore-etcd")
    }

    /// Path of the file with remembered peers.
    pub fn peers(&self) -> PathBuf {
        self.path.join("peers.json")
    }

    /// Directory of Raft's log and snapshots.
    pub fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Directory of etcd's data, certificates and log.
    pub fn etcd(&self) -> PathBuf {
        Self::etcd_in(&self.path)
    }

    /// Same path, for a directory that is not open.
    pub fn etcd_in(path: &Path) -> PathBuf {
        path.join("etcd")
    }
}

fn in_use(path: &Path) -> Fatal {
    Fatal::StateDir {
        path: path.to_owned(),
        problem: "another musterd is using it; stop that one or give another with --state-dir"
            .to_owned(),
    }
}

/// Syncs the directory and its ancestors, even if an earlier start created them. That start may
/// have been killed before it synced, and this one acts on the directory's contents.
fn sync_with_ancestors(path: &Path) -> Result<(), Fatal> {
    let not_synced = |error| Fatal::StateDir {
        path: path.to_owned(),
        problem: muster_types::error::chain(&error),
    };
    muster_files::sync_directory(path).map_err(not_synced)?;
    for around in path.ancestors().skip(1).filter(|around| !around.as_os_str().is_empty()) {
        if let Err(error) = muster_files::sync_directory(around) {
            // An ancestor of another owner cannot be synced; it existed before this node.
            tracing::debug!(
                error = muster_types::error::chain(&error),
                "cannot sync an ancestor of the state directory"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        (root, path)
    }

    #[test]
    fn a_missing_directory_is_fit_and_is_made_private() {
        let (_root, path) = fresh();
        StateDir::check(&path).unwrap();
        assert!(!path.exists(), "a check changes nothing");
        let _open = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "1\n");
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let (_root, path) = fresh();
        let _first = StateDir::open(&path).unwrap();
        let refused = StateDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains("another musterd is using it"), "{refused}");
    }

    /// The state was refused with "it is not a directory".
    #[test]
    fn a_link_to_a_directory_is_followed() {
        let (root, path) = fresh();
        drop(StateDir::open(&path).unwrap());
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let open = StateDir::open(&link).unwrap();
        assert!(StateDir::open(&path).is_err(), "the directory is locked");
        drop(open);
        fs::remove_dir_all(&path).unwrap();
        let refused = StateDir::open(&link).unwrap_err().to_string();
        assert!(refused.contains("cannot follow the link"), "{refused}");
    }

    /// A later version may write more lines.
    #[test]
    fn only_the_first_line_of_the_format_counts() {
        let (_root, path) = fresh();
        drop(StateDir::open(&path).unwrap());
        assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "1\n");
        fs::write(path.join("format"), "1\nlevel 7\n").unwrap();
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn an_unfit_directory_is_refused_and_left_as_it_was() {
        type Damage = fn(&Path);
        let invalid: [(&str, Damage); 3] = [
            ("newer Muster (format 2, this version reads up to 1)", |p| {
                fs::write(p.join("format"), "2\n").unwrap();
            }),
            ("not a state directory", |p| fs::write(p.join("photo.jpg"), "").unwrap()),
            ("mode is 0755", |p| {
                fs::set_permissions(p, fs::Permissions::from_mode(0o755)).unwrap();
            }),
        ];
        for (sentence, damage) in invalid {
            let (_root, path) = fresh();
            fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            damage(&path);
            let before = fs::read_dir(&path).unwrap().count();
            let refused = StateDir::open(&path).unwrap_err().to_string();
            assert!(refused.contains(sentence), "{refused}");
            assert_eq!(fs::read_dir(&path).unwrap().count(), before);
        }
    }
}
