//! `cluster create`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster_messages::operator::member::State;
use muster_types::error::chain;
use muster_types::{DEFAULT_PORT, NodeName, Role};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::LocalError;
use super::find::default_directory;
use crate::cli::context::report_context_switch;
use crate::cli::failure::{Failure, summary};
use crate::cli::health::HealthView;
use crate::cli::init::{InitError, NewCluster};
use crate::cli::parse;
use crate::client::{Api, CallError};
use crate::context::ContextStore;
use crate::files::{self, FileError};
use crate::local::{ClusterRecord, LocalNode, LoopbackBlock, Process, last_log_line, musterd};
use crate::output::{Output, Progress, Render};

/// Default time limit for the cluster to become healthy; `--timeout` overrides it.
const HEALTHY_TIMEOUT: Duration = Duration::from_mins(3);

/// Timeout of one health check. Short, so that a node that exited is noticed soon.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between two health checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

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
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// etcd program to run [default: the one on the PATH]
    #[arg(long, value_name = "PROGRAM")]
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
        let mut progress = Progress::new();
        let outcome = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
            outcome = bring_up(&program, &directory, &mut record, (store, deadline), &mut progress) => outcome,
        };
        progress.finish();
        if let Err(why) = outcome {
            record.stop().await.map_err(LocalError::from)?;
            return Err(LocalError::NotHealthy { name, why, logs: logs(&directory) }.into());
        }
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

/// Log files of all nodes, as a glob pattern.
fn logs(directory: &Path) -> String {
    directory.join("*/musterd.log").display().to_string()
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

/// Starts every node and waits until the cluster is healthy. The error is text for the operator.
async fn bring_up(
    program: &Path,
    directory: &Path,
    record: &mut ClusterRecord,
    (store, deadline): (&ContextStore, Instant),
    progress: &mut Progress,
) -> Result<(), String> {
    for index in 0..record.nodes.len() {
        let node = &mut record.nodes[index];
        let log = files::open_log(&node.log(directory)).map_err(|e| chain(&e))?;
        let arguments = node.arguments(directory);
        let process = Process::start(program, &arguments, &log).map_err(|e| chain(&e))?;
        progress.update(
            node.name.as_str(),
            &format!("started on {} as process {}", node.address, process.pid),
        );
        node.process = Some(process);
        // At once, so that `destroy` finds the process even if this program is killed.
        record.write(directory).map_err(|e| chain(&e))?;
    }
    let context = store.open(Some(&record.name)).map_err(|e| chain(&e))?;
    let mut api = Api::new(context, Vec::new(), None, CALL_TIMEOUT);
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(node) = exited_node(record) {
            let said = last_log_line(&node.log(directory)).map(|line| format!(": {line}"));
            return Err(format!("{}: musterd exited{}", node.name, said.unwrap_or_default()));
        }
        let problems = match check_cluster(&mut api, record).await {
            Ok(()) => return Ok(()),
            Err(problems) => problems,
        };
        for Problem { subject, change_key, text } in &problems {
            progress.update_keyed(subject, change_key, text);
        }
        if Instant::now() > deadline {
            let all: Vec<String> =
                problems.iter().map(|m| format!("{}: {}", m.subject, m.text)).collect();
            return Err(format!("not healthy in time: {}", all.join("; ")));
        }
    }
}

fn exited_node(record: &ClusterRecord) -> Option<&LocalNode> {
    record.nodes.iter().find(|node| node.process.as_ref().is_some_and(|p| !p.is_alive()))
}

/// One reason why the cluster is not healthy yet.
struct Problem {
    /// Node that reported it, or `cluster`.
    subject: String,
    /// Key of the reason: a plain progress line is repeated only when this changes.
    change_key: String,
    text: String,
}

impl Problem {
    fn of(subject: impl Into<String>, text: impl Into<String>) -> Self {
        let (subject, text) = (subject.into(), text.into());
        Self { subject, change_key: text.clone(), text }
    }
}

/// Checks the cluster once. The error lists all reasons why it is not healthy.
async fn check_cluster(api: &mut Api, record: &ClusterRecord) -> Result<(), Vec<Problem>> {
    let problems_of = |error: CallError| match error {
        CallError::NoCluster { nodes, .. } => {
            nodes.into_iter().map(|node| Problem::of(node.name, node.waiting_for)).collect()
        }
        error => {
            let change_key = error.change_key();
            vec![Problem { change_key, ..Problem::of("cluster", summary(&error)) }]
        }
    };
    let health = HealthView::from(api.check_health().await.map_err(problems_of)?);
    if !health.healthy {
        let names = record.nodes.iter().map(|node| node.name.as_str());
        let change_key = health.change_key(names);
        return Err(vec![Problem { change_key, ..Problem::of("cluster", health.failed_checks()) }]);
    }
    let reply = api.list_members().await.map_err(problems_of)?;
    let problems: Vec<Problem> = record
        .nodes
        .iter()
        .filter(|node| {
            !reply.members.iter().any(|m| m.name == node.name.as_str() && m.state() == State::Alive)
        })
        .map(|node| Problem::of(node.name.to_string(), "is not an alive member yet"))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
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
