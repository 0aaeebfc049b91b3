//! `cluster.yaml`: what a local cluster consists of.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use muster_proto::{NodeName, Role};
use serde::{Deserialize, Serialize};

use super::Process;
use crate::files::{self, FileError};

const FILE: &str = "cluster.yaml";

/// The largest record, in bytes.
const MAX: usize = 256 << 10;

/// Why the record of a local cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not the record of a local cluster", path.display())]
    Malformed { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("compose {}", path.display())]
    Compose { path: PathBuf, source: Box<serde_saphyr::ser::Error> },
    #[error(
        "{} holds {found}, which `cluster create` did not put there: nothing of it was removed",
        directory.display()
    )]
    Foreign { directory: PathBuf, found: String },
    #[error("remove {}", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
}

/// What `cluster create` made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// `127.X.Y.0/24`.
    pub(crate) block: String,
    pub(crate) nodes: Vec<Member>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Member {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) address: IpAddr,
    /// Unset until it is started.
    #[serde(default)]
    pub(crate) process: Option<Process>,
}

impl Member {
    pub(crate) fn directory(&self, cluster: &Path) -> PathBuf {
        cluster.join(self.name.as_str())
    }

    pub(crate) fn log(&self, cluster: &Path) -> PathBuf {
        self.directory(cluster).join("musterd.log")
    }

    /// What `musterd` is started with.
    pub(crate) fn arguments(&self, cluster: &Path) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        vec![
            "--config".to_owned(),
            path(cluster.join("node.yaml")),
            "--name".to_owned(),
            self.name.to_string(),
            "--address".to_owned(),
            self.address.to_string(),
            "--state-dir".to_owned(),
            path(self.directory(cluster).join("state")),
        ]
    }
}

impl Record {
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    pub(crate) fn read(directory: &Path) -> Result<Self, RecordError> {
        let path = Self::path(directory);
        let text = files::read(&path, MAX)?;
        serde_saphyr::from_str(&text)
            .map_err(|e| RecordError::Malformed { path, source: Box::new(e) })
    }

    pub(crate) fn compose(&self, directory: &Path) -> Result<String, RecordError> {
        let path = Self::path(directory);
        serde_saphyr::to_string(self)
            .map_err(|e| RecordError::Compose { path, source: Box::new(e) })
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), RecordError> {
        let text = self.compose(directory)?;
        Ok(files::replace(&Self::path(directory), text.as_bytes())?)
    }

    /// Refuses a directory in which there is something that the cluster has not put there.
    pub(crate) fn refuse_foreign(&self, directory: &Path) -> Result<(), RecordError> {
        let failed = |path: &Path, source| RecordError::Remove { path: path.to_owned(), source };
        let mut ours: Vec<PathBuf> = vec![directory.join("node.yaml"), Self::path(directory)];
        ours.extend(self.nodes.iter().map(|node| node.directory(directory)));
        for entry in fs::read_dir(directory).map_err(|e| failed(directory, e))? {
            let path = entry.map_err(|e| failed(directory, e))?.path();
            if !ours.contains(&path) {
                let found = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(RecordError::Foreign { directory: directory.to_owned(), found });
            }
        }
        Ok(())
    }

    /// Removes the directory with all that the cluster has put there. Refuses, before removing
    /// anything, when there is something else in it.
    pub(crate) fn remove(&self, directory: &Path) -> Result<(), RecordError> {
        let failed = |path: &Path, source| RecordError::Remove { path: path.to_owned(), source };
        self.refuse_foreign(directory)?;
        for node in &self.nodes {
            let path = node.directory(directory);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(&path, error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        files::remove(&directory.join("node.yaml"))?;
        files::remove(&Self::path(directory))?;
        fs::remove_dir(directory).map_err(|e| failed(directory, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let node = Member {
            name: "cp-1".parse().unwrap(),
            role: Role::ControlPlane,
            address: "127.64.0.1".parse().unwrap(),
            process: None,
        };
        Record { name: "demo".to_owned(), block: "127.64.0.0/24".to_owned(), nodes: vec![node] }
    }

    #[test]
    fn what_is_written_is_read_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = dir.path().join("demo");
        fs::create_dir_all(cluster.join("cp-1/state")).unwrap();
        fs::write(cluster.join("cp-1/state/x"), "x").unwrap();
        fs::write(cluster.join("node.yaml"), "x").unwrap();
        record().write(&cluster).unwrap();
        assert_eq!(Record::read(&cluster).unwrap(), record());
        record().remove(&cluster).unwrap();
        assert!(!cluster.exists());
    }

    #[test]
    fn a_file_of_someone_else_stops_the_removal() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
        let error = record().remove(dir.path()).unwrap_err();
        assert!(matches!(error, RecordError::Foreign { .. }), "{error}");
        assert!(dir.path().join("thesis.txt").exists() && Record::path(dir.path()).exists());
    }
}
