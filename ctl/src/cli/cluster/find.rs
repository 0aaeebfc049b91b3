//! Finds local clusters by their contexts. Reads no cluster's record.

use std::env;
use std::path::PathBuf;

use super::error::LocalError;
use crate::context::{ContextError, ContextStore};
use crate::local::ClusterRecord;

/// Default directory of a local cluster, under the user's state directory.
pub(super) fn default_directory(name: &str) -> Result<PathBuf, LocalError> {
    let base = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = base.or_else(home).filter(|path| path.is_absolute());
    Ok(base.ok_or(LocalError::NoHome)?.join("muster/clusters").join(name))
}

/// Returns the directory of a local cluster, found by its context.
pub(super) fn directory(store: &ContextStore, name: &str) -> Result<PathBuf, LocalError> {
    if store.names()?.iter().any(|known| known == name) {
        let local = store.open(Some(name))?.description.local;
        return local.ok_or_else(|| LocalError::NotLocal(name.to_owned()));
    }
    // Its context may have been removed by hand.
    match default_directory(name) {
        Ok(path) if ClusterRecord::path(&path).is_file() => Ok(path),
        _ => Err(LocalError::Unknown { name: name.to_owned(), others: names(store)? }),
    }
}

/// Names of the local clusters that have a context.
pub(super) fn names(store: &ContextStore) -> Result<Vec<String>, ContextError> {
    let local = |name: &String| store.open(Some(name)).is_ok_and(|c| c.description.local.is_some());
    Ok(store.names()?.into_iter().filter(local).collect())
}
