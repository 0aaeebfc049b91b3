//! Restores a snapshot as the data of a new member of a new cluster.
//!
//! etcd's own tools do the work: `etcdutl snapshot restore` if present, else `etcdctl` of 3.4 and
//! 3.5. Every founder of the new cluster restores the same file with the same members and token
//! before its first start. Then they start with one common history.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::binary::{Binary, LocateError, Tool, locate};
use super::client::snapshot::{self, Digest, Verified, VerifyError};
use super::home::{Home, HomeError, Presence, Record};
use super::spec::{Spec, text, url};
use muster_files::WriteError;

/// Timeout of a restore: enough for 8 GiB on a slow disk.
const RESTORE: Duration = Duration::from_mins(30);

/// Name prefix of the temporary directories in which a restore runs.
const ASIDE: &str = "restoring-g";

/// Outcome of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// Restored now; the member will start with this snapshot.
    Now(Verified),
    /// Restored earlier; the file was not read again.
    Before(Digest),
}

/// Reason why nothing was restored; existing data is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("no snapshot given")]
    NoFile,
    #[error("snapshot rejected")]
    Verify(#[from] VerifyError),
    #[error("snapshot {}: digest {found}, expected {wanted}", path.display())]
    OtherSnapshot { path: PathBuf, found: Digest, wanted: Digest },
    #[error("{} holds or held member data: only a new member can be restored", path.display())]
    DataExists { path: PathBuf },
    #[error("no restore tool found")]
    Locate(#[from] LocateError),
    #[error("run {}", tool.display())]
    Run { tool: PathBuf, source: io::Error },
    #[error("{} timed out after {RESTORE:?}", tool.display())]
    TooLong { tool: PathBuf },
    #[error("{} failed: {said}", tool.display())]
    Refused { tool: PathBuf, said: String },
    #[error("sync or remove {}", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot use etcd's directory")]
    Home(#[from] HomeError),
    #[error("cannot move restored data into place")]
    Write(#[from] WriteError),
}

/// Restores the snapshot as the data of this member, which must not have started yet. Idempotent
/// and cheap to repeat; after a crash, repeat it. If `wanted` is given, the snapshot must have
/// that digest. Without a file, only checks whether one is needed.
pub async fn restore(
    home: &Home,
    spec: &Spec,
    file: Option<&Path>,
    wanted: Option<Digest>,
) -> Result<Restored, RestoreError> {
    if let Some(digest) = earlier(home, spec)? {
        return match wanted.filter(|wanted| *wanted != digest) {
            None => Ok(Restored::Before(digest)),
            Some(_) => Err(RestoreError::DataExists { path: home.data(spec.generation) }),
        };
    }
    let file = file.ok_or(RestoreError::NoFile)?;
    let path = file.to_owned();
    let verified = tokio::task::spawn_blocking(move || snapshot::verify(&path)).await;
    let verified = verified.expect("verifying does not panic")?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != verified.digest) {
        let (path, found) = (file.to_owned(), verified.digest);
        return Err(RestoreError::OtherSnapshot { path, found, wanted });
    }
    muster_files::create_private_directory(home.root())?;
    remove_left_overs(home)?;
    // A unique name: a tool started by a killed process may still be writing.
    let aside = home.root().join(format!("{ASIDE}{}-{}", spec.generation, std::process::id()));
    run(&tool(&spec.binary).await?, spec, file, &aside).await?;
    let (home, spec) = (home.clone(), spec.clone());
    let digest = verified.digest;
    let placed = tokio::task::spawn_blocking(move || place(&home, &spec, &aside, digest)).await;
    placed.expect("placing does not panic")?;
    Ok(Restored::Now(verified))
}

/// Removes the temporary directories of interrupted restores.
fn remove_left_overs(home: &Home) -> Result<(), RestoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Sync { path, source }
    };
    for entry in fs::read_dir(home.root()).map_err(failed(home.root()))? {
        let path = entry.map_err(failed(home.root()))?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(ASIDE.as_bytes()) {
            fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// Digest of the snapshot that this member was restored from, if any; an error if it has other
/// data.
fn earlier(home: &Home, spec: &Spec) -> Result<Option<Digest>, RestoreError> {
    let exists = || RestoreError::DataExists { path: home.data(spec.generation) };
    match home.presence(spec.generation)? {
        Presence::Absent | Presence::Begun(_) if !spec.heard_of => Ok(None),
        Presence::Whole(record) => {
            let digest = record.restored_from.and_then(|digest| digest.parse().ok());
            digest.map(Some).ok_or_else(exists)
        }
        Presence::Absent | Presence::Begun(_) | Presence::Lost(_) | Presence::Strange => {
            Err(exists())
        }
    }
}

/// Finds a restore tool: next to the etcd binary, else in the usual directories.
async fn tool(etcd: &Binary) -> Result<Binary, LocateError> {
    for tool in [Tool::Etcdutl, Tool::Etcdctl] {
        let beside = etcd.path.with_file_name(tool.program());
        if let Ok(found) = locate(tool, Some(&beside)).await {
            return Ok(found);
        }
    }
    match locate(Tool::Etcdutl, None).await {
        Ok(found) => Ok(found),
        Err(_) => locate(Tool::Etcdctl, None).await,
    }
}

async fn run(tool: &Binary, spec: &Spec, file: &Path, to: &Path) -> Result<(), RestoreError> {
    let initial = &spec.initial;
    let members: Vec<_> =
        initial.members.iter().map(|(name, peer)| format!("{name}={}", url(*peer))).collect();
    let mut arguments: Vec<OsString> = ["snapshot", "restore"].map(OsString::from).into();
    arguments.push(file.into());
    for (name, value) in [
        ("name", spec.name.to_string()),
        ("initial-cluster", members.join(",")),
        ("initial-cluster-token", initial.token.clone()),
        ("initial-advertise-peer-urls", url(spec.first_peer())),
        ("data-dir", text(to)),
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
    let output = match timeout(RESTORE, output).await {
        Ok(output) => output.map_err(|source| RestoreError::Run { tool: tool.clone(), source })?,
        Err(_) => return Err(RestoreError::TooLong { tool }),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Err(RestoreError::Refused { tool, said: last.chars().take(400).collect() })
}

/// Moves the restored data into place. The start record is written first: if the rename does not
/// happen, the next start finds an incomplete restore and refuses to start empty.
fn place(home: &Home, spec: &Spec, aside: &Path, digest: Digest) -> Result<(), RestoreError> {
    sync_tree(aside)?;
    let mut record = Record::new(spec.name.clone(), spec.initial.clone());
    record.restored_from = Some(digest.to_string());
    home.write(spec.generation, &record)?;
    muster_files::settle(aside, &home.data(spec.generation))?;
    home.note_data(spec.generation)?;
    Ok(())
}

fn sync_tree(path: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Sync { path: path.to_owned(), source };
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            sync_tree(&entry.map_err(failed)?.path())?;
        }
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}
