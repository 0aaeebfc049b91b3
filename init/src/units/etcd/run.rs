//! The task that owns this node's etcd, and the handle to it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::binary::Version;
use super::client::CredentialsError;
use super::credentials::{self, CredentialPaths};
use super::dir::{EtcdDir, EtcdDirError, GenerationState, StartError};
use super::log_errors::last_error;
use super::probe::{Probe, ProbeResult, ProbedData};
use super::spec::{EtcdGeneration, EtcdSpec};
use crate::logs::LogConfig;
use crate::supervisor::{self, Exit, Policy, StartCheck, StartRefusal, supervise};
use muster_files::WriteError;

/// Probe interval while etcd starts.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);
/// Probe interval while it does not serve.
const FAILING_INTERVAL: Duration = Duration::from_millis(500);
/// Probe interval while it serves.
const HEALTHY_INTERVAL: Duration = Duration::from_secs(2);

/// Number of probes after a start at the short interval: about ten seconds.
const STARTING_PROBES: u32 = 200;

/// Published status of this node's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Desired generation; `None` when no etcd is desired.
    pub generation: Option<EtcdGeneration>,
    pub version: Option<Version>,
    pub phase: EtcdPhase,
    pub data: DataState,
    pub health: EtcdHealth,
    pub pid: Option<u32>,
    /// Number of starts after the first one.
    pub restarts: u64,
    pub last_exit: Option<Exit>,
    /// Last error that the most recently exited process logged.
    pub last_error: Option<String>,
    /// Reason why it does not run although it should.
    pub problem: Option<String>,
}

/// State of the desired generation's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataState {
    /// Not written yet.
    Absent,
    /// On disk.
    Present,
    /// Was on disk, now missing.
    Lost,
}

/// Phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdPhase {
    Stopped,
    Starting,
    Running,
    BackingOff,
    Stopping,
    /// The member's data is lost: it stays down until another generation is desired.
    Lost,
    /// It must not start; `problem` holds the reason.
    Refused,
}

/// Health according to the last probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdHealth {
    /// Not probed since its start, or not running.
    Unknown,
    /// Answers linearizable reads.
    Serving,
    /// Follows as a learner.
    Learner,
    /// Running but not serving; holds etcd's reason.
    Waiting(String),
    /// Does not answer; holds the error.
    Silent(String),
}

impl EtcdHealth {
    /// Reports whether a voter serves or a learner follows.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Serving | Self::Learner)
    }
}

impl From<ProbeResult> for EtcdHealth {
    fn from(result: ProbeResult) -> Self {
        match result {
            ProbeResult::Serving => Self::Serving,
            ProbeResult::Learner => Self::Learner,
            ProbeResult::Waiting(why) => Self::Waiting(why),
            ProbeResult::Silent(why) => Self::Silent(why),
        }
    }
}

/// Reason why a spec was not applied; the previous one stays in effect.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("cannot use etcd's credentials")]
    Credentials(#[from] CredentialsError),
    #[error("cannot use etcd's directory")]
    EtcdDir(#[from] EtcdDirError),
    #[error("cannot write etcd's files")]
    Write(#[from] WriteError),
    #[error("the etcd unit has stopped")]
    Stopped,
}

/// Handle to the etcd unit: submits the desired member and reads the status.
#[derive(Debug, Clone)]
pub struct EtcdUnit {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<EtcdStatus>,
}

impl EtcdUnit {
    /// Sets the desired member. Idempotent: call it as often as needed. Renewed credentials are
    /// installed without a restart, and first-start parameters are ignored once the member has
    /// data. Any other change restarts etcd. Returns once the files are on disk.
    pub async fn set(&self, spec: EtcdSpec) -> Result<(), SetError> {
        self.send(|done| Request::Set(Box::new(spec), done)).await
    }

    /// Stops etcd; returns once it has exited.
    pub async fn stop(&self) -> Result<(), SetError> {
        self.send(Request::Stop).await
    }

    /// Subscribes to the status.
    pub fn status(&self) -> watch::Receiver<EtcdStatus> {
        self.status.clone()
    }

    async fn send(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), SetError>>) -> Request,
    ) -> Result<(), SetError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| SetError::Stopped)?;
        answer.await.map_err(|_| SetError::Stopped)?
    }
}

type Done = oneshot::Sender<Result<(), SetError>>;

#[derive(Debug)]
enum Request {
    Set(Box<EtcdSpec>, Done),
    Stop(Done),
}

/// Supervisor timing for etcd.
///
/// On SIGTERM a leader first transfers its leadership, which takes tenths of a second. If the
/// others are stopping too, it waits 7 s in vain. 3 s allow the transfer and cut that wait short.
/// Everything that etcd acknowledged is on disk, so SIGKILL loses nothing.
pub fn policy() -> Policy {
    Policy { stop_timeout: Duration::from_secs(3), ..Policy::default() }
}

/// Creates the unit's handle and task: the caller spawns [`EtcdUnitTask::run`].
pub fn etcd_unit(dir: EtcdDir, policy: Policy) -> (EtcdUnit, EtcdUnitTask) {
    let (requests, inbox) = mpsc::channel(4);
    let (publish, status) = watch::channel(EtcdStatus {
        generation: None,
        version: None,
        phase: EtcdPhase::Stopped,
        data: DataState::Absent,
        health: EtcdHealth::Unknown,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_error: None,
        problem: None,
    });
    let log = LogConfig::new(dir.log().join("etcd.log"));
    let (supervisor, process) = supervise("etcd", policy, log);
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
    (EtcdUnit { requests, status }, task)
}

type ProbeOutcome = (ProbeResult, Result<ProbedData, EtcdDirError>);

/// Task that owns etcd. Dropping it, or the future of [`EtcdUnitTask::run`], kills etcd at once.
pub struct EtcdUnitTask {
    dir: EtcdDir,
    supervisor: supervisor::Supervisor,
    process: Option<supervisor::SupervisorTask>,
    process_status: watch::Receiver<supervisor::ProcessStatus>,
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
                let stopped = self.supervisor.stop().await.map_err(|_| SetError::Stopped);
                self.publish(|status| status.generation = None);
                self.on_process_status();
                done.send(stopped).ok();
            }
        }
    }

    async fn set(&mut self, spec: EtcdSpec) -> Result<(), SetError> {
        let is_new = self.spec.as_ref() != Some(&spec);
        let probe = is_new.then(|| Probe::new(&spec, &self.dir)).transpose()?;
        let (dir, prepared) = (self.dir.clone(), spec.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&dir, prepared)).await;
        let (prepared, data) = prepared.map_err(|_| SetError::Stopped)??;
        let command = prepared.command(&self.dir);
        self.publish(|status| {
            status.generation = Some(spec.generation);
            status.version = Some(spec.binary.version);
            status.data = data;
        });
        let start_check = start_check(self.dir.clone(), spec.clone());
        let desired = supervisor::ProcessSpec { command, start_check: Some(start_check) };
        self.supervisor.set_spec(desired).await.map_err(|_| SetError::Stopped)?;
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
            (supervisor::ProcessPhase::Refused, Some(StartRefusal::DataLost(_))) => EtcdPhase::Lost,
            (supervisor::ProcessPhase::Refused, _) => EtcdPhase::Refused,
            (supervisor::ProcessPhase::Stopped, _) => EtcdPhase::Stopped,
            (supervisor::ProcessPhase::Starting, _) => EtcdPhase::Starting,
            (supervisor::ProcessPhase::Running, _) => EtcdPhase::Running,
            (supervisor::ProcessPhase::BackingOff, _) => EtcdPhase::BackingOff,
            (supervisor::ProcessPhase::Stopping, _) => EtcdPhase::Stopping,
        };
        let another = self.publish.borrow().pid != process.pid;
        if phase != EtcdPhase::Running {
            self.next_probe = None;
        } else if another || self.next_probe.is_none() {
            (self.probes, self.served) = (0, false);
            self.next_probe = self.schedule_probe(Duration::ZERO);
        }
        self.publish(|status| {
            if another || phase != EtcdPhase::Running {
                status.health = EtcdHealth::Unknown;
            }
            status.phase = phase;
            if phase == EtcdPhase::Lost {
                status.data = DataState::Lost;
            }
            status.pid = process.pid;
            status.restarts = process.restarts;
            status.last_exit = process.last_exit;
            status.last_error = last_error(&process.last_lines);
            status.problem = process.refusal.map(|why| why.to_string()).or(process.problem);
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
        let data = match on_disk {
            Ok(ProbedData::Absent) => Some(DataState::Absent),
            Ok(ProbedData::Present) => Some(DataState::Present),
            Ok(ProbedData::Lost) => Some(DataState::Lost),
            Err(_) => None,
        };
        self.publish(|status| {
            status.health = EtcdHealth::from(result);
            status.data = data.unwrap_or(status.data);
        });
        // The supervisor ends only when this task is about to end as well.
        self.supervisor.report_probe(answered).await.ok();
        match on_disk {
            Ok(ProbedData::Absent | ProbedData::Present) => {}
            Ok(ProbedData::Lost) => {
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
fn prepare(dir: &EtcdDir, mut spec: EtcdSpec) -> Result<(EtcdSpec, DataState), SetError> {
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

fn start_check(dir: EtcdDir, spec: EtcdSpec) -> StartCheck {
    Arc::new(move || {
        if matches!(dir.generation_state(spec.generation), Ok(GenerationState::Absent)) {
            // Runs on the child's thread, so it blocks nothing else.
            std::thread::sleep(spec.first_start_delay());
        }
        dir.check_start(&spec).map_err(|error| match error {
            StartError::DataLost { .. } => StartRefusal::DataLost(error.to_string()),
            StartError::Unmanaged { .. }
            | StartError::RestoreIncomplete { .. }
            | StartError::OtherCluster { .. }
            | StartError::EtcdDir(_) => StartRefusal::Forbidden(error.to_string()),
        })
    })
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
