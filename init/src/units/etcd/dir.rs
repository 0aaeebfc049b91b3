//! The unit's directory, and the record that detects lost data.
//!
//! ```text
//! <dir>/g1           data directory of generation 1, etcd's own
//! <dir>/g1.started   start parameters of generation 1, and whether it ever had data
//! <dir>/tls/         credentials
//! <dir>/log/         etcd's log
//! ```
//!
//! A member that lost its data must never start again as if it were new. It would forget its votes
//! and acknowledged writes, and the cluster could elect a leader that lacks those writes. So a
//! start record next to the data is written and synced before the first start, and outlives the
//! data.

#[cfg(test)]
mod compat;
#[cfg(test)]
mod fuzz;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use muster_types::etcd::EtcdGeneration;
use muster_types::format::{self, NewerFormat, RecordError};

use super::start_record::{FORMAT, StartRecord};
use muster_files::{PRIVATE_MODE, WriteError};

/// Largest start record read, in bytes.
const MAX_RECORD: u64 = 64 << 10;

/// Directory of the etcd unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdDir(PathBuf);

/// State of one generation on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GenerationState {
    /// Neither data nor start record.
    Absent,
    /// A start record, but no data: etcd has not written anything yet.
    Started(StartRecord),
    /// Data and start record.
    Intact(StartRecord),
    /// A start record of data that no longer exists.
    Lost(StartRecord),
    /// Data without a start record.
    Unmanaged,
}

/// The unit's directory could not be read or written, or a start record is invalid.
#[derive(Debug, thiserror::Error)]
pub enum EtcdDirError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is corrupt: {reason}; remove the member and let it join again", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "{} is larger than {MAX_RECORD} bytes; if a newer Muster wrote it, start that version",
        path.display()
    )]
    TooLarge { path: PathBuf },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl EtcdDir {
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The data directory of a generation.
    pub fn data(&self, generation: EtcdGeneration) -> PathBuf {
        self.0.join(format!("g{generation}"))
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn record_path(&self, generation: EtcdGeneration) -> PathBuf {
        self.0.join(format!("g{generation}.started"))
    }

    /// Reads the state of a generation. Blocks.
    pub fn generation_state(
        &self,
        generation: EtcdGeneration,
    ) -> Result<GenerationState, EtcdDirError> {
        let data = self.has_data(generation)?;
        Ok(match (self.record(generation)?, data) {
            (Some(record), true) => GenerationState::Intact(record),
            (Some(record), false) if record.had_data => GenerationState::Lost(record),
            (Some(record), false) => GenerationState::Started(record),
            (None, true) => GenerationState::Unmanaged,
            (None, false) => GenerationState::Absent,
        })
    }

    /// Reports whether etcd's database and write-ahead log both exist: it needs both to continue.
    pub(super) fn has_data(&self, generation: EtcdGeneration) -> Result<bool, EtcdDirError> {
        let member = self.data(generation).join("member");
        let wal = member.join("wal");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EtcdDirError::Read { path, source }
        };
        let entries = match fs::read_dir(&wal) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(&wal)(e)),
        };
        let mut segment = false;
        for entry in entries {
            let entry = entry.map_err(failed(&wal))?;
            segment |= Path::new(&entry.file_name()).extension().is_some_and(|e| e == "wal");
        }
        let database = member.join("snap").join("db");
        Ok(segment && database.try_exists().map_err(failed(&database))?)
    }

    fn record(&self, generation: EtcdGeneration) -> Result<Option<StartRecord>, EtcdDirError> {
        let path = self.record_path(generation);
        let corrupt = |reason: String| EtcdDirError::Corrupt { path: path.clone(), reason };
        match path.metadata() {
            Ok(meta) if meta.len() > MAX_RECORD => {
                return Err(EtcdDirError::TooLarge { path: path.clone() });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(EtcdDirError::Read { path, source }),
        }
        let bytes =
            fs::read(&path).map_err(|source| EtcdDirError::Read { path: path.clone(), source })?;
        let (header, record) =
            (|| serde_json::from_slice(&bytes), || serde_json::from_slice(&bytes));
        format::parse(FORMAT, header, record).map(Some).map_err(|error| match error {
            RecordError::Newer(newer) => EtcdDirError::Newer { path: path.clone(), newer },
            RecordError::Malformed(error) => corrupt(error.to_string()),
        })
    }

    pub(super) fn write(
        &self,
        generation: EtcdGeneration,
        record: &StartRecord,
    ) -> Result<(), EtcdDirError> {
        muster_files::create_private_directory(&self.0)?;
        let text = serde_json::to_vec_pretty(record).expect("a record is plain data");
        muster_files::replace(&self.record_path(generation), &text, PRIVATE_MODE)?;
        Ok(())
    }

    /// Records that etcd has data, once it has. Returns whether data was ever recorded.
    pub fn record_data(&self, generation: EtcdGeneration) -> Result<bool, EtcdDirError> {
        match self.generation_state(generation)? {
            GenerationState::Intact(mut record) if !record.had_data => {
                record.had_data = true;
                self.write(generation, &record)?;
                Ok(true)
            }
            GenerationState::Intact(_) | GenerationState::Lost(_) => Ok(true),
            GenerationState::Absent | GenerationState::Started(_) | GenerationState::Unmanaged => {
                Ok(false)
            }
        }
    }

    /// Removes the files of all generations before this one.
    pub(super) fn remove_generations_before(
        &self,
        generation: EtcdGeneration,
    ) -> Result<(), EtcdDirError> {
        let failed = |source| EtcdDirError::Read { path: self.0.clone(), source };
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix('g'));
            let number = number.map(|rest| rest.strip_suffix(".started").unwrap_or(rest));
            let older = number.and_then(|n| n.parse().ok()).is_some_and(|n: u32| n < generation.0);
            if older && entry.file_type().map_err(failed)?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            } else if older {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}
