//! `cluster create`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use muster_types::{DEFAULT_PORT, NodeName, Role};
use serde::Serialize;
use tokio::time::Instant;

use super::error::LocalError;
use super::find::{self, default_directory};
use super::run::{HEALTHY_TIMEOUT, run_until_healthy};
use crate::cli::context::report_context_switch;
use crate::cli::failure::Failure;
use crate::cli::init::{InitError, NewCluster};
use crate::cli::parse;
use crate::context::ContextStore;
use crate::files::{self, FileError};
use crate::local::{ClusterRecord, LocalNode, LoopbackBlock, musterd};
use crate::output::{Output, Render};

/// Start a cluster of processes on this machine and wait until it is healthy
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Number of control-plane nodes: 1, 3, 5 or 7
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse::founders,
        allow_negative_numbers = true)]
    control_planes: u8,
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers,
        allow_negative_numbers = true)]
    workers: u8,
    /// Name of the cluster and of its context
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = parse::cluster_name)]
    name: NodeName,
    /// Directory for all files of the nodes [default: muster/clusters/NAME in the user's state
    /// directory]
    #[arg(long, value_name = "DIR", value_parser = parse::path)]
    dir: Option<PathBuf>,
    /// etcd program to run [default: the one on the PATH]
    #[arg(long, value_name = "PROGRAM", value_parser = parse::path)]
    etcd: Option<PathBuf>,
}

fn workers(text: &str) -> Result<u8, String> {
    let number = parse::number(text, 0..=100, 1)?;
    u8::try_from(number).map_err(|error| error.to_string())
}

impl Create {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout.unwrap_or(HEALTHY_TIMEOUT);
        let name = self.name.to_string();
        let program = musterd().map_err(LocalError::from)?;
        let (directory, mut record) = self.write(store)?;
        run_until_healthy(&program, &directory, &mut record, (store, deadline)).await?;
        // Only now: the next command must not use the context of a cluster that failed to start.
        let previous = match store.set_current(&name) {
            Ok(previous) => previous,
            Err(source) => return Err(LocalError::NotChosen { name, source }.into()),
        };
        report_context_switch(&name, previous.as_deref());
        Ok(out.show(&Created { name, directory, block: record.block, nodes: record.nodes })?)
    }

    /// Writes the configuration, the record and the context. Starts no process.
    fn write(self, store: &ContextStore) -> Result<(PathBuf, ClusterRecord), LocalError> {
        let Self { control_planes, workers, name, dir, etcd } = self;
        let name = name.as_str();
        let directory = match dir {
            Some(dir) => std::path::absolute(&dir).map_err(|e| FileError::Read(dir, e))?,
            None => default_directory(name)?,
        };
        if let Ok(existing) = find::directory(store, name)
            && let Ok(record) = ClusterRecord::read(&existing)
        {
            let (running, stopped) = record.running();
            return Err(LocalError::Exists { name: name.to_owned(), running, stopped });
        }
        if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(LocalError::DirectoryNotEmpty(directory));
        }
        let context = store.unused_directory(name)?;
        store.pin_current()?;
        let block = LoopbackBlock::find(control_planes, workers, rand::random)?;
        let nodes = plan_nodes(block, control_planes, workers);
        let endpoints: Vec<String> = nodes
            .iter()
            .filter(|node| node.role == Role::ControlPlane)
            .map(|node| format!("{}:{DEFAULT_PORT}", node.address))
            .collect();
        let record = ClusterRecord {
            format: crate::local::RECORD_FORMAT,
            name: name.to_owned(),
            block: block.to_string(),
            nodes,
        };

        let mut plan = NewCluster::new(name, control_planes, "admin");
        plan.template.mdns = false;
        plan.template.static_peers.clone_from(&endpoints);
        plan.template.etcd_binary = etcd
            .map(|path| std::path::absolute(&path).map_err(|e| FileError::Read(path, e)))
            .transpose()?;
        let document = plan.document().map_err(InitError::from)?;
        let mut all = vec![
            (directory.join("node.yaml"), document),
            (ClusterRecord::path(&directory), record.compose(&directory)?.into()),
        ];
        all.extend(plan.context(&context, &endpoints, Some(directory.clone()))?);
        files::create_private_directory(&directory)?;
        files::create_private_directory(&context)?;
        for node in &record.nodes {
            files::create_private_directory(&node.directory(&directory))?;
        }
        let borrowed: Vec<_> =
            all.iter().map(|(path, text)| (path.clone(), text.as_bytes())).collect();
        files::create_all(&borrowed)?;
        Ok((directory, record))
    }
}

fn plan_nodes(block: LoopbackBlock, control_planes: u8, workers: u8) -> Vec<LocalNode> {
    let member = |name: String, role, address| LocalNode {
        name: name.parse().expect("a prefix and a number are a node name"),
        role,
        address,
        process: None,
    };
    let control = (1..=control_planes)
        .map(|n| member(format!("cp-{n}"), Role::ControlPlane, block.control_plane(n)));
    let workers =
        (1..=workers).map(|n| member(format!("worker-{n}"), Role::Worker, block.worker(n)));
    control.chain(workers).collect()
}

#[derive(Debug, Serialize)]
struct Created {
    name: String,
    directory: PathBuf,
    block: String,
    nodes: Vec<LocalNode>,
}

impl Render for Created {
    fn prose(&self) -> String {
        let Self { name, directory, block, nodes } = self;
        format!(
            "The cluster {name} is healthy: {} nodes on {block}, everything in {}.\nIts context is \
             the current one.\n\nTry:\n  musterctl members\n  musterctl etcd status\n  musterctl \
             cluster destroy {name}",
            nodes.len(),
            directory.display(),
        )
    }
}
