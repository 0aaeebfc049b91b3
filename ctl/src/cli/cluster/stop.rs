//! `cluster stop`.

use std::path::PathBuf;

use clap::Args;
use muster_types::NodeName;
use serde::Serialize;

use super::destroy::processes;
use super::error::LocalError;
use super::find::directory;
use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::context::ContextStore;
use crate::local::ClusterRecord;
use crate::output::{Output, Render};

/// Stop the processes of a local cluster; `cluster start` starts them again
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[arg(value_name = "NAME", default_value = "demo", value_parser = parse::cluster_name)]
    name: NodeName,
}

impl Stop {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let name = self.name.to_string();
        let directory = directory(store, &name)?;
        let record = ClusterRecord::read(&directory).map_err(LocalError::from)?;
        let stopped = record.stop().await.map_err(LocalError::from)?;
        Ok(out.show(&StopView { name, directory, stopped })?)
    }
}

#[derive(Debug, Serialize)]
struct StopView {
    name: String,
    directory: PathBuf,
    stopped: usize,
}

impl Render for StopView {
    fn prose(&self) -> String {
        let Self { name, stopped, .. } = self;
        let stopped = processes(*stopped);
        format!("Stopped {stopped} of {name}. `musterctl cluster start {name}` starts it again.")
    }
}
