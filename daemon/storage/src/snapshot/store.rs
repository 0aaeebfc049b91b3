//! Snapshot files of the state machine: complete or absent, verified on read, the last two kept.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::file::{self, SnapshotFile};
use crate::durable_index::{DurableIndex, DurableWatch};
use crate::error::{StoreError, io_error};

/// Number of snapshots kept.
const KEPT_SNAPSHOTS: usize = 2;

/// Snapshot files of one node.
#[derive(Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    /// Locked while a file is written: a snapshot may be built while another is installed.
    writing: Mutex<()>,
    durable: watch::Sender<DurableIndex>,
}

impl SnapshotStore {
    /// Opens `dir`; creates it if missing. Removes files that a power cut left incomplete.
    pub fn open(dir: PathBuf) -> Result<Self, StoreError> {
        muster_files::create_private_directory(&dir)?;
        // A process killed earlier may have created it without a sync.
        muster_files::sync_directory(&dir)?;
        muster_files::sync_parent(&dir)?;
        let snapshots = Self { dir, writing: Mutex::new(()), durable: watch::Sender::default() };
        snapshots.remove_with_extension("new")?;
        let covered = snapshots.files()?.last().map(|file| file.index);
        snapshots.durable.send_modify(|durable| durable.index = covered);
        Ok(snapshots)
    }

    /// Watch on the index that the snapshots on disk cover; updated with every saved one.
    pub(crate) fn durable_index(&self) -> DurableWatch {
        DurableWatch::new(&self.durable)
    }

    /// Notifies callers that wait for a snapshot that it failed.
    pub(crate) fn fail(&self, why: &StoreError) {
        self.durable.send_modify(|durable| durable.failed = Some(muster_types::error::chain(why)));
    }

    /// Writes the snapshot that covers everything up to `index`, then removes all but the last two.
    pub(crate) fn save(&self, index: u64, header: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.files()?.iter().map(|file| file.number + 1).max().unwrap_or(0);
        let path = self.dir.join(format!("{index:016x}-{number:016x}.snap"));
        file::write(&path, header, body)?;
        let files = self.files()?;
        for old in files.iter().rev().skip(KEPT_SNAPSHOTS) {
            fs::remove_file(&old.path).map_err(io_error("remove", &old.path))?;
        }
        self.remove_with_extension("bad")?;
        self.durable.send_modify(|durable| durable.index = durable.index.max(Some(index)));
        Ok(())
    }

    /// Reads the newest valid snapshot that reaches `floor`, the last purged index: a shorter one
    /// would leave a gap.
    ///
    /// Renames a newer corrupt one to `.bad` and logs it. Only for the start of a node: later the
    /// log may have purged entries that only the corrupt snapshot covers, but the state is in
    /// memory.
    pub(crate) fn newest(&self, floor: Option<u64>) -> Result<Option<SnapshotFile>, StoreError> {
        let mut damage = None;
        for file in self.files()?.iter().rev() {
            if floor.is_some_and(|floor| file.index < floor) {
                break;
            }
            match file::read(&file.path) {
                Ok(found) => {
                    if let Some(damage) = damage {
                        self.quarantine(damage)?;
                        self.durable.send_modify(|durable| durable.index = Some(file.index));
                    }
                    return Ok(Some(found));
                }
                Err(StoreError::Corrupt { path, why }) if damage.is_none() => {
                    damage = Some(StoreError::Corrupt { path, why });
                }
                // The newer version may be able to use what this one takes for damage.
                Err(error @ (StoreError::Newer { .. } | StoreError::SnapshotTooLarge { .. })) => {
                    return Err(error);
                }
                Err(error) => return Err(damage.unwrap_or(error)),
            }
        }
        match (damage, floor) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(None),
            (None, Some(floor)) => Err(StoreError::Corrupt {
                path: self.dir.clone(),
                why: format!("the log begins after entry {floor}, but no snapshot covers it"),
            }),
        }
    }

    /// Reads the newest snapshot, without a fallback to an older one.
    pub(crate) fn last(&self) -> Result<Option<SnapshotFile>, StoreError> {
        self.files()?.last().map(|file| file::read(&file.path)).transpose()
    }

    /// Error for a snapshot with a valid checksum but invalid contents.
    pub(crate) fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.dir.clone(), why }
    }

    fn quarantine(&self, damage: StoreError) -> Result<(), StoreError> {
        let StoreError::Corrupt { path, why } = damage else { return Ok(()) };
        tracing::error!(path = %path.display(), why, "snapshot corrupt, renamed to .bad");
        let bad = path.with_extension("bad");
        fs::rename(&path, &bad).map_err(io_error("rename to .bad", &path))?;
        Ok(muster_files::sync_directory(&self.dir)?)
    }

    /// Removes files with this extension: incomplete ones, or corrupt ones once a newer snapshot
    /// exists. They contain secrets.
    fn remove_with_extension(&self, extension: &str) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            if path.extension().is_some_and(|e| e == extension) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Lists the snapshot files, ordered by index, the highest last.
    fn files(&self) -> Result<Vec<SnapshotPath>, StoreError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            files.extend(SnapshotPath::parse(entry.map_err(io_error("list", &self.dir))?.path()));
        }
        files.sort_by_key(|file| (file.index, file.number));
        Ok(files)
    }
}

#[derive(Debug)]
struct SnapshotPath {
    index: u64,
    /// Sequence number of the snapshot on this node: two may have the same index.
    number: u64,
    path: PathBuf,
}

impl SnapshotPath {
    fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".snap")?;
        let (index, number) = name.split_once('-')?;
        let index = u64::from_str_radix(index, 16).ok()?;
        let number = u64::from_str_radix(number, 16).ok()?;
        Some(Self { index, number, path })
    }
}
