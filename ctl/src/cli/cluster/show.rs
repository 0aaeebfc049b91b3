//! `cluster show`.

use std::path::PathBuf;

use clap::Args;
use muster_types::{NodeName, Role};
use serde::Serialize;

use super::error::LocalError;
use super::find::directory;
use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::context::ContextStore;
use crate::local::{ClusterRecord, Process};
use crate::output::{Output, Render, table};

/// Show the processes of a local cluster
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[arg(value_name = "NAME", default_value = "demo", value_parser = parse::cluster_name)]
    name: NodeName,
}

impl Show {
    pub(crate) fn run(self, store: &ContextStore, out: &mut Output<'_>) -> Result<(), Failure> {
        let directory = directory(store, self.name.as_str())?;
        let ClusterRecord { name, block, nodes, .. } =
            ClusterRecord::read(&directory).map_err(LocalError::from)?;
        let nodes = nodes
            .into_iter()
            .map(|node| NodeView {
                log: node.log(&directory),
                running: node.process.as_ref().is_some_and(Process::is_alive),
                pid: node.process.map(|process| process.pid),
                name: node.name.to_string(),
                role: node.role,
                address: node.address.to_string(),
            })
            .collect();
        Ok(out.show(&Shown { name, block, directory, nodes })?)
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    block: String,
    directory: PathBuf,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    name: String,
    role: Role,
    address: String,
    pid: Option<u32>,
    running: bool,
    log: PathBuf,
}

impl Render for Shown {
    fn text(&self) -> String {
        let rows = self.nodes.iter().map(|node| {
            let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let state = if node.running { "running" } else { "stopped" };
            [
                node.name.clone(),
                node.role.to_string(),
                node.address.clone(),
                pid,
                state.to_owned(),
                node.log.display().to_string(),
            ]
        });
        table(["NODE", "ROLE", "ADDRESS", "PID", "STATE", "LOG"], rows)
    }

    fn prose(&self) -> String {
        format!("{} on {}, in {}", self.name, self.block, self.directory.display())
    }
}
