//! `cluster`: clusters of processes on this machine.

mod create;
mod destroy;
mod list;
mod show;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::init::InitError;
use crate::client::CallError;
use crate::context::{ContextError, ContextStore};
use crate::failure::Failure;
use crate::files::FileError;
use crate::local::{
    AddressError, ClusterRecord, ClusterRecordError, LocalNode, Process, ProcessError, ProgramError,
};
use crate::output::Output;

/// Run a whole cluster on this machine, on loopback addresses
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    Create(create::Create),
    List(list::List),
    Show(show::Show),
    Destroy(destroy::Destroy),
}

/// Error of a `cluster` command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Record(#[from] ClusterRecordError),
    #[error(transparent)]
    Addresses(#[from] AddressError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("there is no local cluster {name}{}", known(others))]
    Unknown { name: String, others: Vec<String> },
    #[error("directory {} is not empty\ntry: another --dir", .0.display())]
    DirectoryNotEmpty(PathBuf),
    #[error("no home directory\ntry: --dir DIR")]
    NoHome,
    #[error("context {0} belongs to a cluster that is not local\ntry: another name")]
    NotLocal(String),
    #[error(
        "{why}\n\
         all started processes were stopped; logs: {logs}\n\
         try: `musterctl cluster destroy {name}` to remove everything"
    )]
    NotHealthy { name: String, why: String, logs: String },
    #[error(
        "cluster {name} is healthy and running, but its context is not the current one \
         (`musterctl context use {name}` selects it, `musterctl cluster destroy {name}` ends the \
         cluster)"
    )]
    NotChosen { name: String, source: ContextError },
}

fn known(others: &[String]) -> String {
    if others.is_empty() {
        "\ntry: `musterctl cluster create`".to_owned()
    } else {
        format!("\navailable: {}", others.join(", "))
    }
}

impl Cluster {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(store, timeout, out).await,
            Self::List(list) => list.run(store, out),
            Self::Show(show) => show.run(store, out),
            Self::Destroy(destroy) => destroy.run(store, out).await,
        }
    }
}

/// Default directory of a local cluster, under the user's state directory.
fn default_directory(name: &str) -> Result<PathBuf, LocalError> {
    let base = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = base.or_else(home).filter(|path| path.is_absolute());
    Ok(base.ok_or(LocalError::NoHome)?.join("muster/clusters").join(name))
}

/// Returns the directory of a local cluster, found by its context.
fn directory(store: &ContextStore, name: &str) -> Result<PathBuf, LocalError> {
    if store.names().iter().any(|known| known == name) {
        let local = store.open(Some(name))?.description.local;
        return local.ok_or_else(|| LocalError::NotLocal(name.to_owned()));
    }
    // Its context may have been removed by hand.
    match default_directory(name) {
        Ok(path) if ClusterRecord::path(&path).is_file() => Ok(path),
        _ => Err(LocalError::Unknown { name: name.to_owned(), others: names(store) }),
    }
}

/// Names of the local clusters that have a context.
fn names(store: &ContextStore) -> Vec<String> {
    let local = |name: &String| store.open(Some(name)).is_ok_and(|c| c.description.local.is_some());
    store.names().into_iter().filter(local).collect()
}

/// Number of running nodes.
fn running(record: &ClusterRecord) -> usize {
    let alive = |node: &&LocalNode| node.process.as_ref().is_some_and(Process::is_alive);
    record.nodes.iter().filter(alive).count()
}

/// Log files of all nodes, as a glob pattern.
fn logs(directory: &Path) -> String {
    directory.join("*/musterd.log").display().to_string()
}
