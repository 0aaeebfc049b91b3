//! Snapshot files of the state machine: complete or absent, verified on read, the last two kept.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use super::StoreError;
use super::durable::{create_dir, io_error, sync_dir, write_file};
use super::durable_index::{DurableIndex, DurableWatch};

/// Largest snapshot read or accepted from a peer, in bytes.
pub const MAX_SNAPSHOT: usize = 256 << 20;

/// Largest header (the membership), in bytes.
const MAX_HEADER: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"MSTRSNP1";
const FIXED_LENGTH: usize = MAGIC.len() + 4 + 8;
const CHECKSUM_LENGTH: usize = 32;
const KEPT_SNAPSHOTS: usize = 2;

/// Snapshot data: the state machine as MessagePack, as openraft passes it to the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotBody(pub Bytes);

/// Snapshot files of one node.
#[derive(Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
    /// Locked while a file is written: a snapshot may be built while another is installed.
    writing: Mutex<()>,
    durable: watch::Sender<DurableIndex>,
}

/// Contents of a snapshot file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnapshotFile {
    pub(super) header: Bytes,
    pub(super) body: Bytes,
}

impl SnapshotStore {
    /// Opens `dir`; creates it if missing. Removes files that a power cut left incomplete.
    pub fn open(dir: PathBuf) -> Result<Self, StoreError> {
        create_dir(&dir)?;
        let snapshots = Self { dir, writing: Mutex::new(()), durable: watch::Sender::default() };
        snapshots.remove_with_extension("new")?;
        let covered = snapshots.files()?.last().map(|file| file.index);
        snapshots.durable.send_modify(|durable| durable.index = covered);
        Ok(snapshots)
    }

    /// Watch on the index that the snapshots on disk cover; updated with every saved one.
    pub(super) fn durable_index(&self) -> DurableWatch {
        DurableWatch::new(&self.durable)
    }

    /// Notifies callers that wait for a snapshot that it failed.
    pub(super) fn fail(&self, why: &StoreError) {
        self.durable.send_modify(|durable| durable.failed = Some(muster_types::error::chain(why)));
    }

    /// Writes the snapshot that covers everything up to `index`, then removes all but the last two.
    pub(super) fn save(&self, index: u64, header: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.files()?.iter().map(|file| file.number + 1).max().unwrap_or(0);
        let path = self.dir.join(format!("{index:016x}-{number:016x}.snap"));
        let header_len = u32::try_from(header.len()).expect("a membership is not 4 GiB");
        let body_len = u64::try_from(body.len()).expect("usize fits u64");
        let mut fixed = MAGIC.to_vec();
        fixed.extend_from_slice(&header_len.to_be_bytes());
        fixed.extend_from_slice(&body_len.to_be_bytes());
        let sum = checksum(&[&fixed, header, body]);
        write_file(&path, &[&fixed, header, body, &sum])?;
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
    pub(super) fn newest(&self, floor: Option<u64>) -> Result<Option<SnapshotFile>, StoreError> {
        let mut damage = None;
        for file in self.files()?.iter().rev() {
            if floor.is_some_and(|floor| file.index < floor) {
                break;
            }
            match read(&file.path) {
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
    pub(super) fn last(&self) -> Result<Option<SnapshotFile>, StoreError> {
        self.files()?.last().map(|file| read(&file.path)).transpose()
    }

    /// Error for a snapshot with a valid checksum but invalid contents.
    pub(super) fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.dir.clone(), why }
    }

    fn quarantine(&self, damage: StoreError) -> Result<(), StoreError> {
        let StoreError::Corrupt { path, why } = damage else { return Ok(()) };
        tracing::error!(path = %path.display(), why, "snapshot corrupt, renamed to .bad");
        let bad = path.with_extension("bad");
        fs::rename(&path, &bad).map_err(io_error("rename to .bad", &path))?;
        sync_dir(&self.dir)
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

fn read(path: &Path) -> Result<SnapshotFile, StoreError> {
    let corrupt = |why: &str| StoreError::Corrupt { path: path.to_owned(), why: why.to_owned() };
    let length = fs::metadata(path).map_err(io_error("inspect", path))?.len();
    if length > (MAX_SNAPSHOT + MAX_HEADER) as u64 {
        return Err(corrupt("the file exceeds the size limit"));
    }
    let bytes = Bytes::from(fs::read(path).map_err(io_error("read", path))?);
    if bytes.len() < FIXED_LENGTH + CHECKSUM_LENGTH || bytes[..MAGIC.len()] != MAGIC[..] {
        return Err(corrupt("truncated, or not a snapshot"));
    }
    let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM_LENGTH);
    if sum != checksum(&[content]) {
        return Err(corrupt("checksum mismatch"));
    }
    let header_len = u32::from_be_bytes(content[8..12].try_into().expect("four bytes")) as usize;
    let body_len = u64::from_be_bytes(content[12..20].try_into().expect("eight bytes"));
    let variable = content.len() - FIXED_LENGTH;
    if variable.checked_sub(header_len).is_none_or(|rest| rest as u64 != body_len) {
        return Err(corrupt("inconsistent lengths"));
    }
    let header = bytes.slice(FIXED_LENGTH..FIXED_LENGTH + header_len);
    let body = bytes.slice(FIXED_LENGTH + header_len..FIXED_LENGTH + variable);
    Ok(SnapshotFile { header, body })
}

fn checksum(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// Snapshot id that differs whenever the contents differ.
pub(super) fn snapshot_id(index: u64, body: &[u8]) -> String {
    let mut name = format!("{index}-");
    for byte in &digest(&SHA256, body).as_ref()[..8] {
        write!(name, "{byte:02x}").expect("a string takes text");
    }
    name
}
