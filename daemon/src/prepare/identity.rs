//! The key of this node, and the promises that it made with it at births. Neither is replaced here.

use std::fs;
use std::io;
use std::path::Path;

use muster_formation::birth::{BirthRecord, PromiseStore};
use muster_pki::identity::Identity;
use muster_types::error::chain;

use crate::fatal::{Fatal, REINITIALISE};
use crate::state_dir::StateDir;

/// Promises that this node made at births.
#[derive(Debug)]
pub struct Promises {
    /// File that holds the promises.
    pub store: PromiseStore,
    /// `BirthRecord` as it was when the node started.
    pub record: BirthRecord,
}

/// Reads the node's key and its promises, and changes nothing. `None` before the first start. A
/// member without its key is an error: with a new one it would be another node.
pub fn load(dir: &Path, is_member: bool) -> Result<Option<(Identity, Promises)>, Fatal> {
    let problem = |problem: String| Fatal::StateDir { path: dir.to_owned(), problem };
    let bytes = match fs::read(StateDir::identity_in(dir)) {
        Ok(bytes) => muster_pki::Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_member => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(problem(format!("identity.key is missing; {REINITIALISE}")));
        }
        Err(error) => return Err(problem(format!("cannot read identity.key: {error}"))),
    };
    let identity = Identity::from_pkcs8(&bytes).map_err(|error| {
        problem(format!("identity.key contains no valid key ({error}); {REINITIALISE}"))
    })?;
    let (store, record) = PromiseStore::open(dir, identity.node_id()).map_err(|error| {
        let advice = if error.is_permanent() { format!("; {REINITIALISE}") } else { String::new() };
        problem(chain(&error) + &advice)
    })?;
    Ok(Some((identity, Promises { store, record })))
}

/// Reads the node's key and its promises. The first start creates both, the promises first, so a
/// key without promises means that they were lost.
pub fn open(state: &StateDir, is_member: bool) -> Result<(Identity, Promises), Fatal> {
    if let Some(found) = load(state.path(), is_member)? {
        return Ok(found);
    }
    let broken = |error: &dyn std::error::Error| Fatal::StateDir {
        path: state.path().to_owned(),
        problem: chain(error),
    };
    let identity = Identity::generate();
    let store = PromiseStore::create(state.path(), identity.node_id()).map_err(|e| broken(&e))?;
    muster_files::replace(&state.identity(), &identity.to_pkcs8(), muster_files::PRIVATE_MODE)
        .map_err(|e| broken(&e))?;
    Ok((identity, Promises { store, record: BirthRecord::NEW }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_birth_record_is_reported_without_a_change() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("state")).unwrap();
        assert!(load(state.path(), false).unwrap().is_none(), "nothing is created");
        let (created, _) = open(&state, false).unwrap();
        let (loaded, _) = load(state.path(), false).unwrap().unwrap();
        assert_eq!(created.node_id(), loaded.node_id());
        fs::write(state.path().join("birth"), "damaged").unwrap();
        let refused = load(state.path(), false).unwrap_err().to_string();
        assert!(refused.contains("birth") && refused.contains(REINITIALISE), "{refused}");
    }
}
