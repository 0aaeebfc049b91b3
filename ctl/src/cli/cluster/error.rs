//! Errors of the `cluster` commands.

use std::path::PathBuf;

use crate::cli::failure::{CommandError, ExitCode};
use crate::cli::init::InitError;
use crate::context::ContextError;
use crate::files::FileError;
use crate::local::{AddressError, ClusterRecordError, ProcessError, ProgramError};

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
    #[error("there is no local cluster {name}{}", known(others))]
    Unknown { name: String, others: Vec<String> },
    #[error(
        "the local cluster {name} exists: {}\n\
         nothing was changed\n\
         try: {}`musterctl cluster destroy {name}`, or another --name",
        describe_nodes(running, stopped),
        if stopped.is_empty() { String::new() } else { format!("`musterctl cluster start {name}`, ") }
    )]
    Exists { name: String, running: Vec<String>, stopped: Vec<String> },
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

/// Lists the nodes of a local cluster that run, and those that do not.
fn describe_nodes(running: &[String], stopped: &[String]) -> String {
    match (running, stopped) {
        (running, []) => format!("all of its nodes run ({})", running.join(", ")),
        ([], stopped) => format!("none of its nodes runs ({})", stopped.join(", ")),
        (running, stopped) => {
            let (running, stopped) = (running.join(", "), stopped.join(", "));
            format!("running: {running}; stopped: {stopped}")
        }
    }
}

fn known(others: &[String]) -> String {
    if others.is_empty() {
        "\ntry: `musterctl cluster create`".to_owned()
    } else {
        format!("\navailable: {}", others.join(", "))
    }
}

impl CommandError for LocalError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotHealthy { .. } => ExitCode::NotReady,
            Self::Init(_)
            | Self::Context(_)
            | Self::File(_)
            | Self::Record(_)
            | Self::Addresses(_)
            | Self::Program(_)
            | Self::Process(_)
            | Self::Unknown { .. }
            | Self::Exists { .. }
            | Self::DirectoryNotEmpty(_)
            | Self::NoHome
            | Self::NotLocal(_)
            | Self::NotChosen { .. } => ExitCode::Failed,
        }
    }
}
