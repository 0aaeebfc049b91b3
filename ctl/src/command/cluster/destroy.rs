//! `cluster destroy`.

use std::path::PathBuf;

use clap::Args;
use muster_types::NodeName;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{LocalError, directory};
use crate::context::{ContextError, ContextStore};
use crate::failure::Failure;
use crate::local::{ClusterRecord, ClusterRecordError};
use crate::output::{Output, Render};
use crate::parse;

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
                let stopped = stop(&record).await?;
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

/// Stops all nodes concurrently. Returns how many were still running.
pub(super) async fn stop(record: &ClusterRecord) -> Result<usize, LocalError> {
    let mut stops = JoinSet::new();
    for process in record.nodes.iter().filter_map(|node| node.process.clone()) {
        stops.spawn(async move { process.stop(crate::local::GRACE_PERIOD).await });
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

#[derive(Debug, Serialize)]
struct Destroyed {
    name: String,
    directory: PathBuf,
    stopped: usize,
}

impl Render for Destroyed {
    fn text(&self) -> String {
        let Self { name, directory, stopped } = self;
        format!("Stopped {stopped} processes of {name} and removed {}.", directory.display())
    }
}
