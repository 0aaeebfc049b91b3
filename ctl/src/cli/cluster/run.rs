//! Runs the nodes of a local cluster until it is healthy. If it does not become so, or the command is
//! interrupted, the processes that were started are stopped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use muster_messages::operator::member::State;
use muster_types::error::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::LocalError;
use crate::cli::failure::summary;
use crate::cli::health::HealthView;
use crate::client::{Api, CallError};
use crate::context::ContextStore;
use crate::files;
use crate::local::{ClusterRecord, LocalNode, Process, last_log_line, stop_all};
use crate::output::Progress;

/// Default time limit for the cluster to become healthy; `--timeout` overrides it.
pub(super) const HEALTHY_TIMEOUT: Duration = Duration::from_mins(3);

/// Timeout of one health check. Short, so that a node that exited is noticed soon.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between two health checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

/// Starts the nodes that do not run, and waits until the cluster is healthy. Returns how many it
/// started. If it fails, it stops them again.
pub(super) async fn run_until_healthy(
    program: &Path,
    directory: &Path,
    record: &mut ClusterRecord,
    (store, deadline): (&ContextStore, Instant),
) -> Result<usize, LocalError> {
    let (mut progress, mut started) = (Progress::new(), Vec::new());
    let outcome = tokio::select! {
        // The first poll installs the handlers, before any process is started.
        biased;
        signal = termination() => Err(format!("interrupted by {signal}")),
        outcome = bring_up(
            program,
            directory,
            record,
            (store, deadline),
            (&mut progress, &mut started),
        ) => outcome,
    };
    progress.finish();
    let number = started.len();
    if let Err(why) = outcome {
        stop_all(started.into_iter()).await?;
        return Err(LocalError::NotHealthy {
            name: record.name.clone(),
            why,
            logs: logs(directory),
        });
    }
    Ok(number)
}

/// Waits for a signal that ends a program, and returns its name. A signal that was ignored when this
/// program started stays ignored, as `nohup` demands.
async fn termination() -> &'static str {
    let (mut terminate, mut hangup) =
        (handler(SignalKind::terminate()), handler(SignalKind::hangup()));
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "SIGINT",
        () = received(&mut terminate) => "SIGTERM",
        () = received(&mut hangup) => "SIGHUP",
    }
}

fn handler(kind: SignalKind) -> Option<Signal> {
    if is_ignored(kind) { None } else { signal(kind).ok() }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Returns true if this process ignores the signal: `SigIgn` in `proc_pid_status(5)`.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(kind.as_raw_value() - 1)
        .is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// Log files of all nodes, as a glob pattern.
fn logs(directory: &Path) -> String {
    directory.join("*/musterd.log").display().to_string()
}

/// Starts every node that does not run, and waits until the cluster is healthy. The error is text for
/// the operator. `started` gets the processes that it started.
async fn bring_up(
    program: &Path,
    directory: &Path,
    record: &mut ClusterRecord,
    (store, deadline): (&ContextStore, Instant),
    (progress, started): (&mut Progress, &mut Vec<Process>),
) -> Result<(), String> {
    for index in 0..record.nodes.len() {
        let node = &mut record.nodes[index];
        if node.is_running() {
            continue;
        }
        let log = files::open_log(&node.log(directory)).map_err(|e| chain(&e))?;
        let arguments = node.arguments(directory);
        let process = Process::start(program, &arguments, &log).map_err(|e| chain(&e))?;
        progress.update(
            node.name.as_str(),
            &format!("started on {} as process {}", node.address, process.pid),
        );
        started.push(process.clone());
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
        let subjects: Vec<&str> = problems.iter().map(|p| p.subject.as_str()).collect();
        progress.keep_only(&subjects);
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
    record.nodes.iter().find(|node| !node.is_running())
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
