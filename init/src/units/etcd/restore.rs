//! Restores a snapshot as the data of a new member of a new cluster.
//!
//! etcd's own tools do the work: `etcdutl snapshot restore` if present, else `etcdctl` of 3.4 and
//! 3.5. Every founder of the new cluster restores the same file with the same members and token
//! before its first start. Then they start with one common history.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_types::etcd::initial_cluster;
use tokio::process::Command;
use tokio::time::timeout;

use super::binary::{Binary, LocateError, Tool, locate};
use super::client::snapshot::{self, SnapshotDigest, VerifiedSnapshot, VerifyError};
use super::dir::{EtcdDir, EtcdDirError, GenerationState};
use super::spec::{EtcdSpec, path_argument};
use super::start_record::StartRecord;
use muster_files::WriteError;

/// Timeout of a restore: enough for 8 GiB on a slow disk.
const RESTORE_TIMEOUT: Duration = Duration::from_mins(30);

/// Name prefix of the temporary directories in which a restore runs.
const TEMPORARY_PREFIX: &str = "restoring-g";

/// Outcome of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// Restored now; the member will start with this snapshot.
    Done(VerifiedSnapshot),
    /// Restored earlier; the file was not read again.
    AlreadyDone(SnapshotDigest),
}

/// Reason why nothing was restored; existing data is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("no snapshot given")]
    NoFile,
    #[error("snapshot rejected")]
    Verify(#[from] VerifyError),
    #[error("snapshot {}: digest {found}, expected {expected}", path.display())]
    OtherSnapshot { path: PathBuf, found: SnapshotDigest, expected: SnapshotDigest },
    #[error("{} holds or held member data: only a new member can be restored", path.display())]
    DataExists { path: PathBuf },
    #[error("no restore tool found")]
    Locate(#[from] LocateError),
    #[error("cannot run {}", tool.display())]
    Run { tool: PathBuf, source: io::Error },
    #[error("{} timed out after {RESTORE_TIMEOUT:?}", tool.display())]
    TimedOut { tool: PathBuf },
    #[error("{} failed: {printed}", tool.display())]
    Failed { tool: PathBuf, printed: String },
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot use etcd's directory")]
    EtcdDir(#[from] EtcdDirError),
    #[error("cannot move restored data into place")]
    Write(#[from] WriteError),
}

/// Restores the snapshot as the data of this member, which must not have started yet. Idempotent
/// and cheap to repeat; after a crash, repeat it. If `expected` is given, the snapshot must have
/// that digest. Without a file, only checks whether one is needed.
pub async fn restore(
    dir: &EtcdDir,
    spec: &EtcdSpec,
    file: Option<&Path>,
    expected: Option<SnapshotDigest>,
) -> Result<RestoreOutcome, RestoreError> {
    if let Some(digest) = restored_digest(dir, spec)? {
        return match expected.filter(|expected| *expected != digest) {
            None => Ok(RestoreOutcome::AlreadyDone(digest)),
            Some(_) => Err(RestoreError::DataExists { path: dir.data(spec.generation) }),
        };
    }
    let file = file.ok_or(RestoreError::NoFile)?;
    let path = file.to_owned();
    let verified = tokio::task::spawn_blocking(move || snapshot::verify(&path)).await;
    let verified = verified.expect("verifying does not panic")?;
    if let Some(expected) = expected.filter(|expected| *expected != verified.digest) {
        let (path, found) = (file.to_owned(), verified.digest);
        return Err(RestoreError::OtherSnapshot { path, found, expected });
    }
    muster_files::create_private_directory(dir.root())?;
    remove_leftovers(dir)?;
    // A unique name: a tool started by a killed process may still be writing.
    let temporary =
        dir.root().join(format!("{TEMPORARY_PREFIX}{}-{}", spec.generation, std::process::id()));
    run(&find_tool(&spec.binary).await?, spec, file, &temporary).await?;
    let (dir, spec) = (dir.clone(), spec.clone());
    let digest = verified.digest;
    let installed =
        tokio::task::spawn_blocking(move || install(&dir, &spec, &temporary, digest)).await;
    installed.expect("installing does not panic")?;
    Ok(RestoreOutcome::Done(verified))
}

/// Removes the temporary directories of interrupted restores.
fn remove_leftovers(dir: &EtcdDir) -> Result<(), RestoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Remove { path, source }
    };
    for entry in fs::read_dir(dir.root()).map_err(failed(dir.root()))? {
        let path = entry.map_err(failed(dir.root()))?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(TEMPORARY_PREFIX.as_bytes()) {
            fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// Digest of the snapshot that this member was restored from, if any; an error if it has other
/// data.
fn restored_digest(dir: &EtcdDir, spec: &EtcdSpec) -> Result<Option<SnapshotDigest>, RestoreError> {
    let exists = || RestoreError::DataExists { path: dir.data(spec.generation) };
    match dir.generation_state(spec.generation)? {
        GenerationState::Absent | GenerationState::Started(_) if !spec.known_to_cluster => Ok(None),
        GenerationState::Intact(record) => {
            let digest = record.restored_from.and_then(|digest| digest.parse().ok());
            digest.map(Some).ok_or_else(exists)
        }
        GenerationState::Absent
        | GenerationState::Started(_)
        | GenerationState::Lost(_)
        | GenerationState::Unmanaged => Err(exists()),
    }
}

/// Finds a restore tool: next to the etcd binary, else in the usual directories.
async fn find_tool(etcd: &Binary) -> Result<Binary, LocateError> {
    for tool in [Tool::Etcdutl, Tool::Etcdctl] {
        let adjacent = etcd.path.with_file_name(tool.program());
        if let Ok(found) = locate(tool, Some(&adjacent)).await {
            return Ok(found);
        }
    }
    match locate(Tool::Etcdutl, None).await {
        Ok(found) => Ok(found),
        Err(_) => locate(Tool::Etcdctl, None).await,
    }
}

async fn run(tool: &Binary, spec: &EtcdSpec, file: &Path, to: &Path) -> Result<(), RestoreError> {
    let initial = &spec.initial;
    let mut arguments: Vec<OsString> = ["snapshot", "restore"].map(OsString::from).into();
    arguments.push(file.into());
    for (name, value) in [
        ("name", spec.name.to_string()),
        ("initial-cluster", initial_cluster(&initial.members)),
        ("initial-cluster-token", initial.token.clone()),
        ("initial-advertise-peer-urls", spec.initial_peer_url()),
        ("data-dir", path_argument(to)),
    ] {
        arguments.push(format!("--{name}={value}").into());
    }
    let tool = tool.path.clone();
    let output = Command::new(&tool)
        .args(arguments)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(RESTORE_TIMEOUT, output).await {
        Ok(output) => output.map_err(|source| RestoreError::Run { tool: tool.clone(), source })?,
        Err(_) => return Err(RestoreError::TimedOut { tool }),
    };
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let last = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Err(RestoreError::Failed { tool, printed: last.chars().take(400).collect() })
}

/// Moves the restored data into place. The start record is written first: if the rename does not
/// happen, the next start finds an incomplete restore and refuses to start empty.
fn install(
    dir: &EtcdDir,
    spec: &EtcdSpec,
    temporary: &Path,
    digest: SnapshotDigest,
) -> Result<(), RestoreError> {
    muster_files::sync_tree(temporary)?;
    let mut record = StartRecord::new(spec.name.clone(), spec.initial.clone());
    record.restored_from = Some(digest.to_string());
    dir.write(spec.generation, &record)?;
    muster_files::rename_into_place(temporary, &dir.data(spec.generation))?;
    dir.record_data(spec.generation)?;
    Ok(())
}
