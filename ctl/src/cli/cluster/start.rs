//! `cluster start`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use muster_types::NodeName;
use serde::Serialize;
use tokio::time::Instant;

use super::error::LocalError;
use super::find::directory;
use super::run::{HEALTHY_TIMEOUT, run_until_healthy};
use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::context::ContextStore;
use crate::local::{ClusterRecord, musterd};
use crate::output::{Output, Render};

/// Start the nodes of a local cluster that do not run, and wait until it is healthy
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[arg(value_name = "NAME", default_value = "demo", value_parser = parse::cluster_name)]
    name: NodeName,
}

impl Start {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout.unwrap_or(HEALTHY_TIMEOUT);
        let name = self.name.to_string();
        let directory = directory(store, &name)?;
        let program = musterd().map_err(LocalError::from)?;
        let mut record = ClusterRecord::read(&directory).map_err(LocalError::from)?;
        record.check_startable(&directory).map_err(LocalError::from)?;
        let started =
            run_until_healthy(&program, &directory, &mut record, (store, deadline)).await?;
        Ok(out.show(&StartView { name, directory, nodes: record.nodes.len(), started })?)
    }
}

#[derive(Debug, Serialize)]
struct StartView {
    name: String,
    directory: PathBuf,
    nodes: usize,
    started: usize,
}

impl Render for StartView {
    fn prose(&self) -> String {
        let Self { name, nodes, started, .. } = self;
        format!("The cluster {name} is healthy: {started} of {nodes} nodes started.")
    }
}
