//! The task that owns this node's etcd: supervises the process, probes it and publishes its status.
//! Never decides what should run.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use muster_types::etcd::DataState;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::credentials::{self, CredentialPaths};
use super::dir::{EtcdDir, EtcdDirError, GenerationState};
use super::handle::{EtcdUnit, EtcdUnitError, Request};
use super::log_errors::last_error;
use super::probe::{Probe, ProbeResult};
use super::spec::EtcdSpec;
use super::start_check::start_check;
use super::status::EtcdStatus;
use crate::logs::LogConfig;
use crate::supervisor::{
    Policy, ProcessPhase, ProcessSpec, ProcessStatus, StartRefusal, Supervisor, SupervisorTask,
};
use crate::units::{UnitHealth, UnitPhase};

/// Probe interval while etcd starts.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);
/// Probe interval while it does not serve.
const FAILING_INTERVAL: Duration = Duration::from_millis(500);
/// Probe interval while it serves.
const HEALTHY_INTERVAL: Duration = Duration::from_secs(2);

/// Number of probes after a start at the short interval: about ten seconds.
const STARTING_PROBES: u32 = 200;

/// Supervisor timing for etcd.
///
/// On SIGTERM a leader first transfers its leadership, which takes tenths of a second. If the
/// others are stopping too, it waits 7 s in vain. 3 s allow the transfer and cut that wait short.
/// Everything that etcd acknowledged is on disk, so SIGKILL loses nothing.
pub fn policy() -> Policy {
    Policy { stop_timeout: Duration::from_secs(3), ..Policy::default() }
}

impl EtcdUnit {
    /// Creates the unit's handle and task: the caller spawns [`EtcdUnitTask::run`].
    pub fn new(dir: EtcdDir, policy: Policy) -> (Self, EtcdUnitTask) {
        let (requests, inbox) = mpsc::channel(4);
        let (publish, status) = watch::channel(EtcdStatus::STOPPED);
        let log = LogConfig::new(dir.log().join("etcd.log"));
        let (supervisor, process) = Supervisor::new("etcd", policy, log);
        let task = EtcdUnitTask {
            process_status: supervisor.status(),
            dir,
            supervisor,
            process: Some(process),
            spec: None,
            probe: None,
            next_probe: None,
            probes: 0,
            served: false,
            cleanup: JoinSet::new(),
            inbox,
            publish,
        };
        (Self { requests, status }, task)
    }
}

type ProbeOutcome = (ProbeResult, Result<DataState, EtcdDirError>);

/// Task that owns etcd. Dropping it, or the future of [`EtcdUnitTask::run`], kills etcd at once.
pub struct EtcdUnitTask {
    dir: EtcdDir,
    supervisor: Supervisor,
    process: Option<SupervisorTask>,
    process_status: watch::Receiver<ProcessStatus>,
    /// The spec applied last, and its probe.
    spec: Option<EtcdSpec>,
    probe: Option<Probe>,
    /// The next probe, including its delay; only while the process runs.
    next_probe: Option<BoxFuture<'static, ProbeOutcome>>,
    probes: u32,
    /// It has served since its last start.
    served: bool,
    cleanup: JoinSet<()>,
    inbox: mpsc::Receiver<Request>,
    publish: watch::Sender<EtcdStatus>,
}

impl std::fmt::Debug for EtcdUnitTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdUnitTask").field("dir", &self.dir).finish_non_exhaustive()
    }
}

enum Input {
    End,
    Request(Request),
    Process,
    Probed(ProbeOutcome),
}

impl EtcdUnitTask {
    /// Runs until `stop` or until every handle is dropped; returns once etcd has exited.
    pub async fn run(mut self, stop: CancellationToken) {
        let end = stop.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.process.take().expect("run consumes the task").run(end.clone()));
        loop {
            match self.next_input(&stop).await {
                Input::End => break,
                Input::Request(request) => self.on_request(request).await,
                Input::Process => self.on_process_status(),
                Input::Probed(outcome) => self.on_probe(outcome).await,
            }
        }
        end.cancel();
        while tasks.join_next().await.is_some() {}
        self.on_process_status();
    }

    async fn next_input(&mut self, stop: &CancellationToken) -> Input {
        let next_probe = async {
            match &mut self.next_probe {
                Some(next_probe) => next_probe.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Input::End,
            request = self.inbox.recv() => request.map_or(Input::End, Input::Request),
            changed = self.process_status.changed() => {
                changed.map_or(Input::End, |()| Input::Process)
            }
            outcome = next_probe => Input::Probed(outcome),
        }
    }

    async fn on_request(&mut self, request: Request) {
        // A caller that gave up does not need the reply.
        match request {
            Request::Set(spec, done) => {
                done.send(self.set(*spec).await).ok();
            }
            Request::Stop(done) => {
                let stopped = self.supervisor.stop().await.map_err(|_| EtcdUnitError::Stopped);
                self.publish(|status| status.generation = None);
                self.on_process_status();
                done.send(stopped).ok();
            }
        }
    }

    async fn set(&mut self, spec: EtcdSpec) -> Result<(), EtcdUnitError> {
        let is_new = self.spec.as_ref() != Some(&spec);
        let probe = is_new.then(|| Probe::new(&spec, &self.dir)).transpose()?;
        let (dir, prepared) = (self.dir.clone(), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&dir, prepared)).await;
        let (prepared, data) = prepared.map_err(|_| EtcdUnitError::Stopped)??;
        let command = prepared.command(&self.dir);
        self.publish(|status| {
            status.generation = Some(spec.generation);
            status.version = Some(spec.binary.version);
            status.data = data;
        });
        let start_check = start_check(self.dir.clone(), spec.clone());
        let desired = ProcessSpec { command, start_check: Some(start_check) };
        self.supervisor.set_spec(desired).await.map_err(|_| EtcdUnitError::Stopped)?;
        // Only now: until here the old etcd keeps running and must be probed at its own address.
        if let Some(probe) = probe {
            (self.spec, self.probe) = (Some(spec), Some(probe));
        }
        Ok(())
    }

    /// Applies the supervisor's status.
    fn on_process_status(&mut self) {
        let process = self.process_status.borrow_and_update().clone();
        let phase = match (process.phase, &process.refusal) {
            (ProcessPhase::Refused, Some(StartRefusal::DataLost(_))) => UnitPhase::Lost,
            (ProcessPhase::Refused, _) => UnitPhase::Refused,
            (ProcessPhase::Stopped, _) => UnitPhase::Stopped,
            (ProcessPhase::Starting, _) => UnitPhase::Starting,
            (ProcessPhase::Running, _) => UnitPhase::Running,
            (ProcessPhase::BackingOff, _) => UnitPhase::BackingOff,
            (ProcessPhase::Stopping, _) => UnitPhase::Stopping,
        };
        let another = self.publish.borrow().unit.pid != process.pid;
        if phase != UnitPhase::Running {
            self.next_probe = None;
        } else if another || self.next_probe.is_none() {
            (self.probes, self.served) = (0, false);
            self.next_probe = self.schedule_probe(Duration::ZERO);
        }
        self.publish(|status| {
            if phase == UnitPhase::Lost {
                status.data = DataState::Lost;
            }
            let unit = &mut status.unit;
            if another || phase != UnitPhase::Running {
                unit.health = UnitHealth::Unknown;
                status.is_learner = false;
            }
            unit.phase = phase;
            unit.pid = process.pid;
            unit.restarts = process.restarts;
            unit.last_exit = process.last_exit;
            unit.last_error = last_error(&process.last_lines);
            unit.problem = process.refusal.map(|why| why.to_string()).or(process.problem);
        });
    }

    /// Publishes only on change: every notification makes the controller re-evaluate and submit its
    /// spec again.
    fn publish(&self, change: impl FnOnce(&mut EtcdStatus)) {
        self.publish.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    fn schedule_probe(&self, pause: Duration) -> Option<BoxFuture<'static, ProbeOutcome>> {
        let probe = self.probe.clone()?;
        let future = async move {
            tokio::time::sleep(pause).await;
            probe.run().await
        };
        Some(future.boxed())
    }

    async fn on_probe(&mut self, (result, on_disk): ProbeOutcome) {
        let answered = !matches!(result, ProbeResult::Silent(_));
        let good = matches!(result, ProbeResult::Serving | ProbeResult::Learner);
        if good && !self.served {
            self.served = true;
            info!(probes = self.probes, "etcd serves");
            self.remove_older_generations();
        }
        self.probes = self.probes.saturating_add(1);
        let pause = match (good, self.served, self.probes) {
            (true, ..) => HEALTHY_INTERVAL,
            (false, false, ..STARTING_PROBES) => STARTING_INTERVAL,
            (false, ..) => FAILING_INTERVAL,
        };
        self.next_probe = self.schedule_probe(pause);
        self.publish(|status| {
            status.is_learner = result == ProbeResult::Learner;
            status.unit.health = UnitHealth::from(result);
            status.data = *on_disk.as_ref().unwrap_or(&status.data);
        });
        // The supervisor ends only when this task is about to end as well.
        self.supervisor.report_probe(answered).await.ok();
        match on_disk {
            Ok(DataState::Absent | DataState::Present) => {}
            Ok(DataState::Lost) => {
                warn!("etcd's data was deleted: stopping it before it acknowledges more");
                // The start check then refuses to start it again.
                self.supervisor.restart().await.ok();
            }
            Err(error) => warn!(error = %error, "cannot read etcd's directory"),
        }
    }

    fn remove_older_generations(&mut self) {
        while self.cleanup.try_join_next().is_some() {}
        let Some(generation) = self.publish.borrow().generation else { return };
        let dir = self.dir.clone();
        self.cleanup.spawn_blocking(move || {
            if let Err(error) = dir.remove_generations_before(generation) {
                warn!(error = %error, "cannot remove data of a former etcd member");
            }
        });
    }
}

/// Creates directories and credential files. Returns the spec to run, with the recorded first-start
/// parameters if there is data, and the state of the data.
fn prepare(dir: &EtcdDir, mut spec: EtcdSpec) -> Result<(EtcdSpec, DataState), EtcdUnitError> {
    muster_files::create_private_directory(dir.root())?;
    muster_files::create_private_directory(&dir.log())?;
    credentials::write(&CredentialPaths::in_dir(dir.root()), &spec.credentials)?;
    let data = match dir.generation_state(spec.generation)? {
        GenerationState::Intact(record) => {
            spec.initial = record.initial;
            DataState::Present
        }
        GenerationState::Lost(_) => DataState::Lost,
        GenerationState::Absent | GenerationState::Started(_) if spec.known_to_cluster => {
            DataState::Lost
        }
        GenerationState::Absent | GenerationState::Started(_) | GenerationState::Unmanaged => {
            DataState::Absent
        }
    };
    Ok((spec, data))
}

#[cfg(test)]
mod tests;
