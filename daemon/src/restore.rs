//! Restore of an etcd snapshot, from the command line to the first start of etcd.
//!
//! All founders agree on the snapshot before they promise a birth. From then on the snapshot is
//! part of the birth. A founder that started from anything else would be a member of the same etcd
//! with other data. Therefore a marker file is written before the node can promise anything. It
//! survives a start without the option, and is removed only when this node's etcd has started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use muster_formation::birth::{BirthRecord, Commitment};
use muster_init::units::etcd::EtcdSpec;
use muster_init::units::etcd::client::snapshot::{self, SnapshotDigest};
use muster_init::units::etcd::dir::EtcdDir;
use muster_init::units::etcd::restore::{RestoreError, RestoreOutcome, restore};
use muster_types::etcd::{EtcdGeneration, InitialClusterState};
use tracing::{info, warn};

use crate::fatal::Fatal;
use crate::prepare::identity;
use crate::state_dir::StateDir;
use muster_types::error::chain;

/// The etcd snapshot that a new cluster is restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Must be equal on all founders: it is one of the birth fields that they compare.
    pub digest: SnapshotDigest,
    /// `None` if only an earlier start was given the file.
    file: Option<PathBuf>,
    /// Path of the marker file.
    marker: PathBuf,
}

/// Progress of this node's birth, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BirthProgress {
    /// Nothing is promised; any snapshot may still be chosen.
    Free,
    /// The node has signed a birth that is not settled.
    Promised,
    /// The node belongs to a cluster.
    Member,
}

/// Decision that follows from the option, the marker file and the birth progress.
#[derive(Debug, PartialEq, Eq)]
enum DesiredRestore {
    None,
    Restore(SnapshotDigest),
    /// The marker file holds the first digest, the given file has the second.
    Mismatch(SnapshotDigest, SnapshotDigest),
    /// A snapshot was given after a birth without one was promised.
    TooLate,
}

fn desired_restore(
    birth_progress: BirthProgress,
    written: Option<SnapshotDigest>,
    given: Option<SnapshotDigest>,
) -> DesiredRestore {
    match (birth_progress, written, given) {
        (BirthProgress::Free, _, Some(given)) => DesiredRestore::Restore(given),
        // A member's etcd started long ago, or the member was no founder.
        (BirthProgress::Free, _, None)
        | (BirthProgress::Promised, None, None)
        | (BirthProgress::Member, None, _) => DesiredRestore::None,
        (BirthProgress::Promised, None, Some(_)) => DesiredRestore::TooLate,
        (BirthProgress::Promised | BirthProgress::Member, Some(written), None) => {
            DesiredRestore::Restore(written)
        }
        (BirthProgress::Promised | BirthProgress::Member, Some(written), Some(given)) => {
            if written == given {
                DesiredRestore::Restore(written)
            } else {
                DesiredRestore::Mismatch(written, given)
            }
        }
    }
}

/// Reads and checks the requested restore, and changes nothing. The file is read only while it
/// matters: once this node's etcd has started, it need not exist any more.
pub fn check(dir: &Path, given: Option<&Path>, is_member: bool) -> Result<Option<Restore>, Fatal> {
    let marker = StateDir::restore_in(dir);
    let written = read(dir, &marker)?;
    let birth_progress = if is_member { BirthProgress::Member } else { birth_progress(dir)? };
    let file = given.filter(|_| birth_progress != BirthProgress::Member || written.is_some());
    let verified = file.map(snapshot::verify).transpose();
    let verified =
        verified.map_err(|error| Fatal::Machine(format!("--restore-etcd: {}", chain(&error))))?;
    let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
    match desired_restore(birth_progress, written, verified.map(|verified| verified.digest)) {
        DesiredRestore::None => Ok(None),
        DesiredRestore::Restore(digest) => {
            Ok(Some(Restore { digest, file: file.map(Path::to_owned), marker }))
        }
        DesiredRestore::Mismatch(written, given) => Err(Fatal::Machine(format!(
            "--restore-etcd: this node agreed to a birth with the snapshot of SHA-256 {written}, \
             but {shown} has {given}; give the same file as on the other founders"
        ))),
        DesiredRestore::TooLate => Err(Fatal::Machine(
            "--restore-etcd: this node has already promised a birth without a snapshot; start it \
             without the option"
                .to_owned(),
        )),
    }
}

/// Persists the requested restore of a node that has promised nothing, before it can promise.
pub fn persist(
    state: &StateDir,
    promises: &BirthRecord,
    restore: Option<&Restore>,
) -> Result<(), Fatal> {
    if !promises.is_uncommitted() {
        return Ok(());
    }
    let marker = StateDir::restore_in(state.path());
    let written = match restore {
        Some(Restore { digest, .. }) => muster_files::replace_if_changed(
            &marker,
            format!("{digest}\n").as_bytes(),
            muster_files::PRIVATE_MODE,
        )
        .map_err(|error| chain(&error)),
        None => remove_marker(&marker),
    };
    written.map_err(|problem| Fatal::StateDir { path: state.path().to_owned(), problem })
}

/// Returns the birth progress of a node that is no member by its membership file. Unreadable files
/// are an error: the node may have promised a birth.
fn birth_progress(dir: &Path) -> Result<BirthProgress, Fatal> {
    let Some((_, promises)) = identity::load(dir, false)? else { return Ok(BirthProgress::Free) };
    Ok(match promises.record.commitment {
        Commitment::None => BirthProgress::Free,
        Commitment::Promised(_) => BirthProgress::Promised,
        Commitment::Born(_) | Commitment::Joined(_) => BirthProgress::Member,
    })
}

fn read(dir: &Path, marker: &Path) -> Result<Option<SnapshotDigest>, Fatal> {
    let problem = |problem: String| Fatal::StateDir { path: dir.to_owned(), problem };
    match fs::read_to_string(marker) {
        // A later version may add lines.
        Ok(text) => text.lines().next().unwrap_or_default().trim().parse().map(Some).map_err(|()| {
            problem(format!(
                "its file `{}` contains no SHA-256 of a snapshot; it is written atomically, so a \
                 power cut cannot explain this; restore the file",
                marker.file_name().unwrap_or_default().display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(format!("cannot read {}: {error}", marker.display()))),
    }
}

fn remove_marker(marker: &Path) -> Result<(), String> {
    match fs::remove_file(marker) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot remove {}: {error}", marker.display())),
    }
    muster_files::sync_parent(marker).map_err(|error| chain(&error))
}

impl Restore {
    /// Restores a founder's first generation, unless that was done before. etcd must not start
    /// earlier. Does nothing for any other member, which gets its data from its peers.
    pub async fn run(&self, etcd_dir: &EtcdDir, spec: &EtcdSpec) -> Result<(), String> {
        let is_founder = spec.initial.state == InitialClusterState::New;
        if spec.generation == EtcdGeneration::FIRST && is_founder {
            match restore(etcd_dir, spec, self.file.as_deref(), Some(self.digest)).await {
                Ok(RestoreOutcome::Done(verified)) => {
                    info!(?verified, "etcd restored from the given snapshot");
                }
                // A crash came between the restore and the removal of the marker; or this member
                // has run before, and the snapshot was only for its first start.
                Ok(RestoreOutcome::AlreadyDone(_)) | Err(RestoreError::DataExists { .. }) => {}
                Err(RestoreError::NoFile) => {
                    return Err(format!(
                        "the founders agreed on the snapshot of SHA-256 {}, but this node has not \
                         restored it; stop musterd and start it with `--restore-etcd FILE`, giving \
                         the same file as on the other founders",
                        self.digest
                    ));
                }
                Err(error) => return Err(chain(&error)),
            }
        }
        let marker = self.marker.clone();
        let removed = tokio::task::spawn_blocking(move || remove_marker(&marker)).await;
        if let Ok(Err(error)) = removed {
            // Harmless: the next start finds that etcd has data.
            warn!(error, "cannot remove restore marker");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<SnapshotDigest> = Some(SnapshotDigest([1; 32]));
    const B: Option<SnapshotDigest> = Some(SnapshotDigest([2; 32]));

    #[test]
    fn a_free_node_begins_with_what_it_is_given_now() {
        let begin = |digest: Option<SnapshotDigest>| {
            digest.map_or(DesiredRestore::None, DesiredRestore::Restore)
        };
        for written in [None, A, B] {
            for given in [None, A, B] {
                assert_eq!(desired_restore(BirthProgress::Free, written, given), begin(given));
            }
        }
    }

    #[test]
    fn a_bound_founder_keeps_to_what_was_agreed_also_without_the_option() {
        for birth_progress in [BirthProgress::Promised, BirthProgress::Member] {
            assert_eq!(
                desired_restore(birth_progress, A, None),
                DesiredRestore::Restore(SnapshotDigest([1; 32]))
            );
            assert_eq!(
                desired_restore(birth_progress, A, A),
                DesiredRestore::Restore(SnapshotDigest([1; 32]))
            );
            let other = DesiredRestore::Mismatch(SnapshotDigest([1; 32]), SnapshotDigest([2; 32]));
            assert_eq!(desired_restore(birth_progress, A, B), other);
        }
    }

    #[test]
    fn a_promise_without_a_snapshot_is_not_changed_afterwards() {
        assert_eq!(desired_restore(BirthProgress::Promised, None, A), DesiredRestore::TooLate);
        assert_eq!(desired_restore(BirthProgress::Promised, None, None), DesiredRestore::None);
    }

    #[test]
    fn the_option_is_ignored_once_etcd_has_begun() {
        assert_eq!(desired_restore(BirthProgress::Member, None, A), DesiredRestore::None);
        assert_eq!(desired_restore(BirthProgress::Member, None, None), DesiredRestore::None);
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone.db");
        assert_eq!(check(dir.path(), Some(&gone), true).unwrap(), None);
        check(dir.path(), Some(&gone), false).unwrap_err();
    }

    /// A later version may write more lines.
    #[test]
    fn the_marker_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let marker = StateDir::restore_in(dir.path());
        let digest = SnapshotDigest([1; 32]);
        let sample =
            muster_compat::check("daemon/restore-etcd.txt", format!("{digest}\n").as_bytes());
        for text in [sample.clone(), [&sample[..], b"more\n"].concat()] {
            fs::write(&marker, text).unwrap();
            assert_eq!(read(dir.path(), &marker).unwrap(), Some(digest));
        }
    }

    /// The node counted as free, so `--check` reported nothing, and any snapshot was accepted.
    #[test]
    fn damaged_promises_are_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        identity::open(&state, false).unwrap();
        assert_eq!(check(state.path(), None, false).unwrap(), None);
        fs::write(state.path().join("birth"), "damaged").unwrap();
        let refused = check(state.path(), None, false).unwrap_err().to_string();
        assert!(refused.contains("birth"), "{refused}");
    }

    #[test]
    fn the_restore_is_persisted_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let marker = StateDir::restore_in(state.path());
        let restore =
            Restore { digest: SnapshotDigest([1; 32]), file: None, marker: marker.clone() };
        persist(&state, &BirthRecord::NEW, Some(&restore)).unwrap();
        // As a member, and without promises: only the marker file counts.
        assert_eq!(check(state.path(), None, true).unwrap(), Some(restore));
        assert_eq!(check(state.path(), None, false).unwrap(), None, "a free node restores nothing");
        persist(&state, &BirthRecord::NEW, None).unwrap();
        assert_eq!(check(state.path(), None, true).unwrap(), None);
        fs::write(&marker, "nonsense").unwrap();
        let refused = check(state.path(), None, true).unwrap_err().to_string();
        assert!(refused.contains("restore-etcd"), "{refused}");
    }
}
