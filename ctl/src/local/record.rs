//! `cluster.yaml`: the nodes and processes of a local cluster.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use muster_types::format::{self, NewerFormat, RecordError};
use muster_types::{NodeName, Role};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::process::{GRACE_PERIOD, Process, ProcessError, processes_with_open};
use crate::files::{self, FileError};

const FILE: &str = "cluster.yaml";

/// Largest record, in bytes.
const MAX: usize = 256 << 10;

/// Error of reading, writing or removing a local cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterRecordError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not the record of a local cluster", path.display())]
    Malformed { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error("serialize {}", path.display())]
    Compose { path: PathBuf, source: Box<serde_saphyr::ser::Error> },
    #[error(
        "{} holds {found}, which `cluster create` did not put there\n\
         nothing was removed\n\
         try: move {found} elsewhere, then destroy the cluster",
        directory.display()
    )]
    UnknownEntry { directory: PathBuf, found: String },
    #[error(
        "{} is in use by {}, which `cluster create` did not start\n\
         nothing was changed\n\
         try: stop that musterd, then run the command again",
        state.display(),
        processes(pids)
    )]
    InUse { state: PathBuf, pids: Vec<u32> },
    #[error("inspect {}", path.display())]
    Inspect { path: PathBuf, source: std::io::Error },
    #[error("remove {}", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
}

fn processes(pids: &[u32]) -> String {
    match pids {
        [] => "a process".to_owned(),
        pids => {
            format!("process {}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Format of the record that this build writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// Record of a local cluster, written by `cluster create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterRecord {
    #[serde(default = "format::first")]
    pub(crate) format: u32,
    pub(crate) name: String,
    /// Loopback block, `127.X.Y.0/24`.
    pub(crate) block: String,
    pub(crate) nodes: Vec<LocalNode>,
}

/// A node of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LocalNode {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) address: IpAddr,
    /// None until it is started.
    #[serde(default)]
    pub(crate) process: Option<Process>,
}

impl LocalNode {
    pub(crate) fn directory(&self, cluster: &Path) -> PathBuf {
        cluster.join(self.name.as_str())
    }

    /// Returns true while the recorded process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_alive)
    }

    fn state(&self, cluster: &Path) -> PathBuf {
        self.directory(cluster).join("state")
    }

    pub(crate) fn log(&self, cluster: &Path) -> PathBuf {
        self.directory(cluster).join("musterd.log")
    }

    /// Command-line arguments for this node's `musterd`.
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
            path(self.state(cluster)),
        ]
    }
}

impl ClusterRecord {
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    pub(crate) fn read(directory: &Path) -> Result<Self, ClusterRecordError> {
        let path = Self::path(directory);
        let text = files::read(&path, MAX)?;
        let (header, record) = (|| serde_saphyr::from_str(&text), || serde_saphyr::from_str(&text));
        format::parse(FORMAT, header, record).map_err(|error| match error {
            RecordError::Newer(newer) => ClusterRecordError::Newer { path, newer },
            RecordError::Malformed(error) => {
                ClusterRecordError::Malformed { path, source: Box::new(error) }
            }
        })
    }

    pub(crate) fn compose(&self, directory: &Path) -> Result<String, ClusterRecordError> {
        let path = Self::path(directory);
        serde_saphyr::to_string(self)
            .map_err(|e| ClusterRecordError::Compose { path, source: Box::new(e) })
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), ClusterRecordError> {
        let text = self.compose(directory)?;
        Ok(files::replace(&Self::path(directory), text.as_bytes())?)
    }

    /// Stops all nodes concurrently. Returns how many were still running.
    pub(crate) async fn stop(&self) -> Result<usize, ProcessError> {
        stop_all(self.nodes.iter().filter_map(|node| node.process.clone())).await
    }

    /// Names of the nodes whose process runs, and of the others.
    pub(crate) fn running(&self) -> (Vec<String>, Vec<String>) {
        let (running, stopped): (Vec<_>, Vec<_>) =
            self.nodes.iter().partition(|node| node.is_running());
        let names = |nodes: Vec<&LocalNode>| nodes.iter().map(|n| n.name.to_string()).collect();
        (names(running), names(stopped))
    }

    /// Fails if a `musterd` that is not on record runs in the directory of a node.
    pub(crate) fn check_startable(&self, directory: &Path) -> Result<(), ClusterRecordError> {
        let mut stopped = self.nodes.iter().filter(|node| !node.is_running());
        stopped.try_for_each(|node| check_not_in_use(node.state(directory)))
    }

    /// Fails if the directory holds a file that the cluster did not create, or if a `musterd` that
    /// is not on record runs in it.
    pub(crate) fn check_removable(&self, directory: &Path) -> Result<(), ClusterRecordError> {
        let mut ours = vec![directory.join("node.yaml"), Self::path(directory)];
        ours.extend(self.nodes.iter().map(|node| node.directory(directory)));
        check_entries(directory, &ours)?;
        for node in &self.nodes {
            let state = node.state(directory);
            match check_entries(&node.directory(directory), &[state.clone(), node.log(directory)]) {
                Err(ClusterRecordError::Inspect { source, .. })
                    if source.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
            // A recorded process that is alive is the one that holds the lock.
            if !node.is_running() {
                check_not_in_use(state)?;
            }
        }
        Ok(())
    }

    /// Removes the directory with everything that the cluster created. If it holds anything else,
    /// fails before removing anything.
    pub(crate) fn remove(&self, directory: &Path) -> Result<(), ClusterRecordError> {
        let failed =
            |path: &Path, source| ClusterRecordError::Remove { path: path.to_owned(), source };
        self.check_removable(directory)?;
        for node in &self.nodes {
            let path = node.directory(directory);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
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

/// Stops processes concurrently. Returns how many were still running.
pub(crate) async fn stop_all(
    processes: impl Iterator<Item = Process>,
) -> Result<usize, ProcessError> {
    let mut stops = JoinSet::new();
    for process in processes {
        stops.spawn(async move { process.stop(GRACE_PERIOD).await });
    }
    let mut stopped = 0;
    while let Some(joined) = stops.join_next().await {
        // Only a panic ends such a task early, and a panic ends this program too.
        if let Ok(outcome) = joined
            && outcome?
        {
            stopped += 1;
        }
    }
    Ok(stopped)
}

fn inspect_error(path: &Path) -> impl Fn(std::io::Error) -> ClusterRecordError {
    |source| ClusterRecordError::Inspect { path: path.to_owned(), source }
}

/// Fails if the directory holds an entry that is not in `ours`.
fn check_entries(directory: &Path, ours: &[PathBuf]) -> Result<(), ClusterRecordError> {
    for entry in fs::read_dir(directory).map_err(inspect_error(directory))? {
        let path = entry.map_err(inspect_error(directory))?.path();
        if !ours.contains(&path) {
            let found = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(ClusterRecordError::UnknownEntry {
                directory: directory.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

/// Fails if a running `musterd` has locked the state directory.
fn check_not_in_use(state: PathBuf) -> Result<(), ClusterRecordError> {
    let path = state.join("lock");
    let lock = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(inspect_error(&path))?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(ClusterRecordError::InUse { pids: processes_with_open(&path), state })
        }
        Err(error) => Err(inspect_error(&path)(error.into())),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ClusterRecord {
        let node = LocalNode {
            name: "cp-1".parse().unwrap(),
            role: Role::ControlPlane,
            address: "127.64.0.1".parse().unwrap(),
            process: None,
        };
        ClusterRecord {
            format: FORMAT,
            name: "demo".to_owned(),
            block: "127.64.0.0/24".to_owned(),
            nodes: vec![node],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = record();
        record.nodes[0].process = Some(Process::sample());
        let dir = tempfile::tempdir().unwrap();
        record.write(dir.path()).unwrap();
        let path = ClusterRecord::path(dir.path());
        let sample = muster_compat::check("ctl/cluster.yaml", &fs::read(&path).unwrap());
        let text = String::from_utf8(sample).unwrap();
        // JSON is YAML.
        let json: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let extended = muster_compat::with_new_fields_json(json.to_string().as_bytes(), &[]);
        fs::write(&path, extended).unwrap();
        assert_eq!(ClusterRecord::read(dir.path()).unwrap(), record);
        fs::write(&path, text.replace("format: 1", "format: 2")).unwrap();
        let error = ClusterRecord::read(dir.path()).unwrap_err();
        assert!(matches!(error, ClusterRecordError::Newer { .. }), "{error}");
    }

    #[test]
    fn what_is_written_is_read_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = dir.path().join("demo");
        fs::create_dir_all(cluster.join("cp-1/state")).unwrap();
        fs::write(cluster.join("cp-1/state/x"), "x").unwrap();
        fs::write(cluster.join("node.yaml"), "x").unwrap();
        record().write(&cluster).unwrap();
        assert_eq!(ClusterRecord::read(&cluster).unwrap(), record());
        record().remove(&cluster).unwrap();
        assert!(!cluster.exists());
    }

    #[test]
    fn a_file_of_someone_else_stops_the_removal() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
        let error = record().remove(dir.path()).unwrap_err();
        assert!(matches!(error, ClusterRecordError::UnknownEntry { .. }), "{error}");
        assert!(dir.path().join("thesis.txt").exists() && ClusterRecord::path(dir.path()).exists());
    }

    #[test]
    fn so_does_one_next_to_the_state_of_a_node() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        let damaged = dir.path().join("cp-1/state.damaged");
        fs::create_dir_all(&damaged).unwrap();
        let error = record().remove(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cp-1 holds state.damaged"), "{error}");
        assert!(damaged.exists() && ClusterRecord::path(dir.path()).exists());
    }

    #[test]
    fn so_does_a_lock_that_is_held_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        let state = dir.path().join("cp-1/state");
        fs::create_dir_all(&state).unwrap();
        let lock = File::create(state.join("lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let error = record().remove(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cp-1/state is in use by"), "{error}");
        assert!(state.exists() && ClusterRecord::path(dir.path()).exists());
        drop(lock);
        record().check_removable(dir.path()).unwrap();
    }
}
