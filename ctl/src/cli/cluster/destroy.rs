//! `cluster destroy`.

use std::path::PathBuf;

use clap::Args;
use muster_types::NodeName;
use serde::Serialize;

use super::error::LocalError;
use super::find::directory;
use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::context::{ContextError, ContextStore};
use crate::local::{ClusterRecord, ClusterRecordError};
use crate::output::{Output, Render};

/// Stop the processes of a local cluster and remove its directory and its context, nothing else
#[derive(Debug, Args)]
pub(crate) struct Destroy {
    #[arg(value_name = "NAME", default_value = "demo", value_parser = parse::cluster_name)]
    name: NodeName,
}

impl Destroy {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let name = self.name.to_string();
        let directory = directory(store, &name)?;
        let stopped = match ClusterRecord::read(&directory) {
            Ok(record) => {
                record.check_removable(&directory).map_err(LocalError::from)?;
                let stopped = record.stop().await.map_err(LocalError::from)?;
                record.remove(&directory).map_err(LocalError::from)?;
                stopped
            }
            // Removed by hand, including its processes. Only the context is left.
            Err(ClusterRecordError::File(error)) if error.is_missing() && !directory.exists() => 0,
            Err(error) => return Err(LocalError::from(error).into()),
        };
        match store.remove(&name) {
            Ok(()) | Err(ContextError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(out.show(&Destroyed { name, directory, stopped })?)
    }
}

#[derive(Debug, Serialize)]
struct Destroyed {
    name: String,
    directory: PathBuf,
    stopped: usize,
}

impl Render for Destroyed {
    fn prose(&self) -> String {
        let Self { name, directory, stopped } = self;
        let stopped = processes(*stopped);
        format!("Stopped {stopped} of {name} and removed {}.", directory.display())
    }
}

/// Formats a number of processes.
pub(super) fn processes(number: usize) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{number} processes") }
}
