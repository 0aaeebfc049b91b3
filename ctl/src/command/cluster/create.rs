//! `cluster create`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster_types::{DEFAULT_PORT, NodeName, Role};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::destroy::stop;
use super::{LocalError, default_directory, logs};
use crate::command::context::tell_switch;
use crate::command::health::{self, HealthView, substance_of};
use crate::command::init::{InitError, Plan};
use crate::command::members;
use crate::connect::{Api, CallError};
use crate::context::Store;
use crate::failure::{Failure, chain, summary};
use crate::files::{self, FileError};
use crate::local::{Block, Member, Process, Record, musterd};
use crate::output::{Output, Progress, View};
use crate::value;

/// Default time limit for the cluster to become healthy; `--timeout` overrides it.
const HEALTHY: Duration = Duration::from_mins(3);

/// Timeout of one health check. Short, so that a node that exited is noticed soon.
const CALL: Duration = Duration::from_secs(3);

/// Interval between two health checks.
const LOOK: Duration = Duration::from_millis(300);

/// Start a cluster of processes on this machine and wait until it is healthy
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Number of control-plane nodes: 1, 3, 5 or 7
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value::founders,
        allow_negative_numbers = true)]
    control_planes: u8,
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers,
        allow_negative_numbers = true)]
    workers: u8,
    /// Name of the cluster and of its context
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = value::cluster_name)]
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
    let number = value::number(text, 0..=100, 1)?;
    u8::try_from(number).map_err(|error| error.to_string())
}

impl Create {
    pub(crate) async fn run(
        self,
        store: &Store,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout.unwrap_or(HEALTHY);
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
            stop(&record).await?;
            return Err(LocalError::NotHealthy { name, why, logs: logs(&directory) }.into());
        }
        // Only now: the next command must not use the context of a cluster that failed to start.
        let before = match store.choose(&name) {
            Ok(before) => before,
            Err(source) => return Err(LocalError::NotChosen { name, source }.into()),
        };
        tell_switch(&name, before.as_deref());
        Ok(out.show(&Created { name, directory, block: record.block, nodes: record.nodes })?)
    }

    /// Writes the configuration, the record and the context. Starts no process.
    fn write(self, store: &Store) -> Result<(PathBuf, Record), LocalError> {
        let Self { control_planes, workers, name, dir, etcd } = self;
        let name = name.as_str();
        let directory = match dir {
            Some(dir) => std::path::absolute(&dir).map_err(|e| FileError::Read(dir, e))?,
            None => default_directory(name)?,
        };
        if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(LocalError::Occupied(directory));
        }
        let context = store.vacant(name)?;
        store.settle()?;
        let block = Block::find(control_planes, workers, rand::random)?;
        let nodes = plan(block, control_planes, workers);
        let endpoints: Vec<String> = nodes
            .iter()
            .filter(|node| node.role == Role::ControlPlane)
            .map(|node| format!("{}:{DEFAULT_PORT}", node.address))
            .collect();
        let record = Record { name: name.to_owned(), block: block.to_string(), nodes };

        let mut plan = Plan::new(name, control_planes, "admin");
        plan.template.mdns = false;
        plan.template.static_peers.clone_from(&endpoints);
        plan.template.etcd_binary = etcd
            .map(|path| std::path::absolute(&path).map_err(|e| FileError::Read(path, e)))
            .transpose()?;
        let document = plan.document().map_err(InitError::from)?;
        let mut all = vec![
            (directory.join("node.yaml"), document),
            (Record::path(&directory), record.compose(&directory)?.into()),
        ];
        all.extend(plan.context(&context, &endpoints, Some(directory.clone()))?);
        files::make_private_directory(&directory)?;
        files::make_private_directory(&context)?;
        for node in &record.nodes {
            files::make_private_directory(&node.directory(&directory))?;
        }
        let borrowed: Vec<_> =
            all.iter().map(|(path, text)| (path.clone(), text.as_bytes())).collect();
        files::create_all(&borrowed)?;
        Ok((directory, record))
    }
}

fn plan(block: Block, control_planes: u8, workers: u8) -> Vec<Member> {
    let member = |name: String, role, address| Member {
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
    record: &mut Record,
    (store, deadline): (&Store, Instant),
    progress: &mut Progress,
) -> Result<(), String> {
    for index in 0..record.nodes.len() {
        let node = &mut record.nodes[index];
        let log = files::open_log(&node.log(directory)).map_err(|e| chain(&e))?;
        let arguments = node.arguments(directory);
        let process = Process::start(program, &arguments, &log).map_err(|e| chain(&e))?;
        progress.say(
            node.name.as_str(),
            &format!("started on {} as process {}", node.address, process.pid),
        );
        node.process = Some(process);
        // At once, so that `destroy` finds the process even if this program is killed.
        record.write(directory).map_err(|e| chain(&e))?;
    }
    let context = store.open(Some(&record.name)).map_err(|e| chain(&e))?;
    let mut api = Api::new(context, Vec::new(), None, CALL);
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(node) = ended(record) {
            return Err(format!("{}: musterd exited{}", node.name, last_words(node, directory)));
        }
        let missing = match look(&mut api, record).await {
            Ok(()) => return Ok(()),
            Err(missing) => missing,
        };
        for Missing { subject, substance, words } in &missing {
            progress.tell(subject, substance, words);
        }
        if Instant::now() > deadline {
            let all: Vec<String> =
                missing.iter().map(|m| format!("{}: {}", m.subject, m.words)).collect();
            return Err(format!("not healthy in time: {}", all.join("; ")));
        }
    }
}

fn ended(record: &Record) -> Option<&Member> {
    record.nodes.iter().find(|node| node.process.as_ref().is_some_and(|p| !p.is_alive()))
}

/// Last line of a node's log.
fn last_words(node: &Member, directory: &Path) -> String {
    let Ok(text) = std::fs::read_to_string(node.log(directory)) else { return String::new() };
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.map(|line| format!(": {}", line.chars().take(400).collect::<String>())).unwrap_or_default()
}

/// One reason why the cluster is not healthy yet.
struct Missing {
    /// Node that reported it, or `cluster`.
    subject: String,
    /// Key of the reason: a plain progress line is repeated only when this changes.
    substance: String,
    words: String,
}

impl Missing {
    fn of(subject: impl Into<String>, words: impl Into<String>) -> Self {
        let (subject, words) = (subject.into(), words.into());
        Self { subject, substance: words.clone(), words }
    }
}

/// Checks the cluster once. The error lists all reasons why it is not healthy.
async fn look(api: &mut Api, record: &Record) -> Result<(), Vec<Missing>> {
    let told = |error: CallError| match error {
        CallError::NoCluster { nodes, .. } => {
            nodes.into_iter().map(|node| Missing::of(node.name, node.awaits)).collect()
        }
        error => {
            let substance = substance_of(&error);
            vec![Missing { substance, ..Missing::of("cluster", summary(&error)) }]
        }
    };
    let health = HealthView::from(health::ask(api).await.map_err(told)?);
    if !health.healthy {
        let names = record.nodes.iter().map(|node| node.name.as_str());
        let substance = health.substance(names);
        return Err(vec![Missing { substance, ..Missing::of("cluster", health.missing()) }]);
    }
    let reply = members::ask(api).await.map_err(told)?;
    let missing: Vec<Missing> = record
        .nodes
        .iter()
        .filter(|node| {
            !reply.members.iter().any(|m| m.name == node.name.as_str() && m.state == "alive")
        })
        .map(|node| Missing::of(node.name.to_string(), "is not an alive member yet"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

#[derive(Debug, Serialize)]
struct Created {
    name: String,
    directory: PathBuf,
    block: String,
    nodes: Vec<Member>,
}

impl View for Created {
    fn text(&self) -> String {
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
