//! Restore of an etcd snapshot, from the command line to the first start of etcd.
//!
//! All founders agree on the snapshot before they promise a birth. From then on the snapshot is
//! part of the birth. A founder that started from anything else would be a member of the same etcd
//! with other data. Therefore a marker file is written before the node can promise anything. It
//! survives a start without the option, and is removed only when this node's etcd has started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use muster_formation::birth::{BirthRecord, Commitment, PromiseStore};
use muster_init::units::etcd::client::snapshot::{self, Digest};
use muster_init::units::etcd::home::Home;
use muster_init::units::etcd::restore::{RestoreError, Restored, restore};
use muster_init::units::etcd::{Generation, InitialState, Spec};
use muster_pki::identity::Identity;
use tracing::{info, warn};

use crate::fatal::Fatal;
use crate::state_dir::StateDir;
use muster_types::error::chain;

/// The etcd snapshot that a new cluster is restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Must be equal on all founders: it is one of the birth fields that they compare.
    pub digest: Digest,
    /// `None` if only an earlier start was given the file.
    file: Option<PathBuf>,
    /// Path of the marker file.
    record: PathBuf,
}

/// Progress of this node's birth, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing is promised; any snapshot may still be chosen.
    Free,
    /// The node has signed a birth that is not settled.
    Promised,
    /// The node belongs to a cluster.
    Member,
}

/// Decision that follows from the option, the marker file and the birth progress.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    None,
    Begin(Digest),
    /// The marker file holds the first digest, the given file has the second.
    Other(Digest, Digest),
    /// A snapshot was given after a birth without one was promised.
    TooLate,
}

fn wish(standing: Standing, written: Option<Digest>, given: Option<Digest>) -> Wish {
    match (standing, written, given) {
        (Standing::Free, _, Some(given)) => Wish::Begin(given),
        // A member's etcd started long ago, or the member was no founder.
        (Standing::Free, _, None)
        | (Standing::Promised, None, None)
        | (Standing::Member, None, _) => Wish::None,
        (Standing::Promised, None, Some(_)) => Wish::TooLate,
        (Standing::Promised | Standing::Member, Some(written), None) => Wish::Begin(written),
        (Standing::Promised | Standing::Member, Some(written), Some(given)) => {
            if written == given {
                Wish::Begin(written)
            } else {
                Wish::Other(written, given)
            }
        }
    }
}

/// Reads and checks the requested restore, and changes nothing. The file is read only while it
/// matters: once this node's etcd has started, it need not exist any more.
pub fn check(dir: &Path, given: Option<&Path>, is_member: bool) -> Result<Option<Restore>, Fatal> {
    let record = StateDir::restore_in(dir);
    let written = read(dir, &record)?;
    let standing = if is_member { Standing::Member } else { standing(dir) };
    let file = given.filter(|_| standing != Standing::Member || written.is_some());
    let verified = file.map(snapshot::verify).transpose();
    let verified =
        verified.map_err(|error| Fatal::Machine(format!("--restore-etcd: {}", chain(&error))))?;
    let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
    match wish(standing, written, verified.map(|verified| verified.digest)) {
        Wish::None => Ok(None),
        Wish::Begin(digest) => Ok(Some(Restore { digest, file: file.map(Path::to_owned), record })),
        Wish::Other(written, given) => Err(Fatal::Machine(format!(
            "--restore-etcd: this node agreed to a birth with the snapshot of SHA-256 {written}, \
             but {shown} has {given}; give the same file as on the other founders"
        ))),
        Wish::TooLate => Err(Fatal::Machine(
            "--restore-etcd: this node has already promised a birth without a snapshot; start it \
             without the option"
                .to_owned(),
        )),
    }
}

/// Persists the requested restore of a node that has promised nothing, before it can promise.
pub fn write_down(
    state: &StateDir,
    promises: &BirthRecord,
    restore: Option<&Restore>,
) -> Result<(), Fatal> {
    if !promises.is_uncommitted() {
        return Ok(());
    }
    let record = StateDir::restore_in(state.path());
    let written = match restore {
        Some(Restore { digest, .. }) => {
            muster_files::keep(&record, format!("{digest}\n").as_bytes(), muster_files::PRIVATE)
                .map_err(|error| chain(&error))
        }
        None => forget(&record),
    };
    written.map_err(|problem| Fatal::StateDir { path: state.path().to_owned(), problem })
}

/// Returns the birth progress, as far as it can be read. The later open reports problems of the
/// files.
fn standing(dir: &Path) -> Standing {
    let commitment = || {
        let key = muster_pki::Zeroizing::new(fs::read(StateDir::identity_in(dir)).ok()?);
        let identity = Identity::from_pkcs8(&key).ok()?;
        Some(PromiseStore::open(dir, identity.node_id()).ok()?.1.commitment)
    };
    match commitment() {
        None | Some(Commitment::None) => Standing::Free,
        Some(Commitment::Promised(_)) => Standing::Promised,
        Some(Commitment::Born(_) | Commitment::Joined(_)) => Standing::Member,
    }
}

fn read(dir: &Path, record: &Path) -> Result<Option<Digest>, Fatal> {
    let problem = |problem: String| Fatal::StateDir { path: dir.to_owned(), problem };
    match fs::read_to_string(record) {
        Ok(text) => text.trim().parse().map(Some).map_err(|()| {
            problem(format!(
                "its file `{}` contains no SHA-256 of a snapshot; it is written atomically, so a \
                 power cut cannot explain this; restore the file",
                record.file_name().unwrap_or_default().display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(format!("cannot read {}: {error}", record.display()))),
    }
}

fn forget(record: &Path) -> Result<(), String> {
    match fs::remove_file(record) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot remove {}: {error}", record.display())),
    }
    let around = record.parent().unwrap_or_else(|| Path::new("."));
    muster_files::sync_directory(around).map_err(|error| chain(&error))
}

impl Restore {
    /// Restores a founder's first generation, unless that was done before. etcd must not start
    /// earlier. Does nothing for any other member, which gets its data from its peers.
    pub async fn begin(&self, home: &Home, spec: &Spec) -> Result<(), String> {
        if spec.generation == Generation(0) && spec.initial.state == InitialState::New {
            match restore(home, spec, self.file.as_deref(), Some(self.digest)).await {
                Ok(Restored::Now(verified)) => {
                    info!(?verified, "etcd restored from the given snapshot");
                }
                // A crash came between the restore and the removal of the marker; or this member
                // has run before, and the snapshot was only for its first start.
                Ok(Restored::Before(_)) | Err(RestoreError::DataExists { .. }) => {}
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
        let record = self.record.clone();
        let forgotten = tokio::task::spawn_blocking(move || forget(&record)).await;
        if let Ok(Err(error)) = forgotten {
            // Harmless: the next start finds that etcd has data.
            warn!(error, "cannot remove restore marker");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<Digest> = Some(Digest([1; 32]));
    const B: Option<Digest> = Some(Digest([2; 32]));

    #[test]
    fn a_free_node_begins_with_what_it_is_given_now() {
        let begin = |digest: Option<Digest>| digest.map_or(Wish::None, Wish::Begin);
        for written in [None, A, B] {
            for given in [None, A, B] {
                assert_eq!(wish(Standing::Free, written, given), begin(given));
            }
        }
    }

    #[test]
    fn a_bound_founder_keeps_to_what_was_agreed_also_without_the_option() {
        for standing in [Standing::Promised, Standing::Member] {
            assert_eq!(wish(standing, A, None), Wish::Begin(Digest([1; 32])));
            assert_eq!(wish(standing, A, A), Wish::Begin(Digest([1; 32])));
            let other = Wish::Other(Digest([1; 32]), Digest([2; 32]));
            assert_eq!(wish(standing, A, B), other);
        }
    }

    #[test]
    fn a_promise_without_a_snapshot_is_not_changed_afterwards() {
        assert_eq!(wish(Standing::Promised, None, A), Wish::TooLate);
        assert_eq!(wish(Standing::Promised, None, None), Wish::None);
    }

    #[test]
    fn the_option_is_ignored_once_etcd_has_begun() {
        assert_eq!(wish(Standing::Member, None, A), Wish::None);
        assert_eq!(wish(Standing::Member, None, None), Wish::None);
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone.db");
        assert_eq!(check(dir.path(), Some(&gone), true).unwrap(), None);
        check(dir.path(), Some(&gone), false).unwrap_err();
    }

    #[test]
    fn the_wish_is_written_down_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let record = StateDir::restore_in(state.path());
        let restore = Restore { digest: Digest([1; 32]), file: None, record: record.clone() };
        write_down(&state, &BirthRecord::NEW, Some(&restore)).unwrap();
        // As a member, and without promises: only the marker file counts.
        assert_eq!(check(state.path(), None, true).unwrap(), Some(restore));
        assert_eq!(check(state.path(), None, false).unwrap(), None, "a free node restores nothing");
        write_down(&state, &BirthRecord::NEW, None).unwrap();
        assert_eq!(check(state.path(), None, true).unwrap(), None);
        fs::write(&record, "nonsense").unwrap();
        let refused = check(state.path(), None, true).unwrap_err().to_string();
        assert!(refused.contains("restore-etcd"), "{refused}");
    }
}
