//! `cluster list`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::find::{directory, names};
use crate::cli::failure::Failure;
use crate::context::ContextStore;
use crate::local::ClusterRecord;
use crate::output::{Output, Render, table};

/// List the local clusters
#[derive(Debug, Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(self, store: &ContextStore, out: &mut Output<'_>) -> Result<(), Failure> {
        let Self {} = self;
        let mut clusters = Vec::new();
        for name in names(store)? {
            let directory = directory(store, &name)?;
            // A cluster whose record is missing or damaged is listed without nodes.
            let record = ClusterRecord::read(&directory).ok();
            let (nodes, running) = record.map_or((0, 0), |r| (r.nodes.len(), r.running().0.len()));
            clusters.push(Listed { name, nodes, running, directory });
        }
        Ok(out.show(&Clusters { clusters })?)
    }
}

#[derive(Debug, Serialize)]
struct Clusters {
    clusters: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    nodes: usize,
    running: usize,
    directory: PathBuf,
}

impl Render for Clusters {
    fn text(&self) -> String {
        if self.clusters.is_empty() {
            return String::new();
        }
        let rows = self.clusters.iter().map(|cluster| {
            [
                cluster.name.clone(),
                format!("{} of {} running", cluster.running, cluster.nodes),
                cluster.directory.display().to_string(),
            ]
        });
        table(["NAME", "NODES", "DIRECTORY"], rows)
    }

    fn prose(&self) -> String {
        if self.clusters.is_empty() {
            return "There is no local cluster: `musterctl cluster create` creates one.".to_owned();
        }
        String::new()
    }
}
