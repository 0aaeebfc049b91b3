//! The task that owns one process, and the handle to it.

use std::fmt;
use std::io;
use std::time::Instant;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::child::{Child, ChildEvent, Command, StartCheck, StartRefusal, launch};
use super::step::{Effect, Event, Exit, Policy, ProcessState, Revision, StateMachine};
use crate::logs::LogConfig;

/// Number of ineffective SIGKILLs after which a process counts as stuck in the kernel.
const MAX_KILLS: u32 = 3;

/// The desired process.
#[derive(Clone)]
pub struct ProcessSpec {
    pub command: Command,
    /// Runs before every start; `None` allows every start.
    pub start_check: Option<StartCheck>,
}

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Published status of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStatus {
    pub phase: ProcessPhase,
    /// Set while the process runs or is being stopped.
    pub pid: Option<u32>,
    /// Number of starts after the first one.
    pub restarts: u64,
    pub last_exit: Option<Exit>,
    /// Last output lines of the process that exited most recently, oldest first.
    pub last_lines: Vec<String>,
    /// Reason given by the start check; only with [`ProcessPhase::Refused`].
    pub refusal: Option<StartRefusal>,
    /// Error of the last start attempt; `None` after a successful one.
    pub problem: Option<String>,
}

/// Phase of the process, without details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessPhase {
    Stopped,
    /// The start check refuses the start.
    Refused,
    Starting,
    Running,
    BackingOff,
    Stopping,
}

/// The supervisor task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has stopped")]
pub struct SupervisorStopped;

/// Handle to the supervisor: submits the desired process and reads its status.
#[derive(Debug, Clone)]
pub struct Supervisor {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<ProcessStatus>,
}

impl Supervisor {
    /// Creates the handle and its task: the caller spawns [`SupervisorTask::run`].
    pub fn new(name: &'static str, policy: Policy, log: LogConfig) -> (Self, SupervisorTask) {
        let (requests, inbox) = mpsc::channel(16);
        let (events, children) = mpsc::channel(4);
        let machine = StateMachine::new(policy);
        let (publish, status) = watch::channel(ProcessStatus {
            phase: ProcessPhase::Stopped,
            pid: None,
            restarts: 0,
            last_exit: None,
            last_lines: Vec::new(),
            refusal: None,
            problem: None,
        });
        let task = SupervisorTask {
            name,
            log,
            machine,
            desired: None,
            revision: Revision::default(),
            child: None,
            kills: 0,
            inbox,
            events,
            children,
            publish,
        };
        (Self { requests, status }, task)
    }

    /// Sets the desired process. A changed command restarts the process. The same command changes
    /// nothing, except that a refused start is tried again.
    pub async fn set_spec(&self, spec: ProcessSpec) -> Result<(), SupervisorStopped> {
        self.requests.send(Request::Set(spec)).await.map_err(|_| SupervisorStopped)
    }

    /// Stops the process; returns once it has exited.
    pub async fn stop(&self) -> Result<(), SupervisorStopped> {
        self.requests.send(Request::Stop).await.map_err(|_| SupervisorStopped)?;
        let mut status = self.status.clone();
        status
            .wait_for(|status| status.phase == ProcessPhase::Stopped)
            .await
            .map_err(|_| SupervisorStopped)?;
        Ok(())
    }

    /// Restarts the process with the same command.
    pub async fn restart(&self) -> Result<(), SupervisorStopped> {
        self.requests.send(Request::Restart).await.map_err(|_| SupervisorStopped)
    }

    /// Reports a probe result: whether the process answered in time. A process that stays silent
    /// for longer than the policy allows is killed and restarted.
    pub async fn report_probe(&self, answered: bool) -> Result<(), SupervisorStopped> {
        self.requests.send(Request::ProbeResult { answered }).await.map_err(|_| SupervisorStopped)
    }

    /// Subscribes to the status.
    pub fn status(&self) -> watch::Receiver<ProcessStatus> {
        self.status.clone()
    }
}

/// Task that owns the process. Dropping it, or the future of [`SupervisorTask::run`], kills the
/// process.
#[derive(Debug)]
pub struct SupervisorTask {
    name: &'static str,
    log: LogConfig,
    machine: StateMachine,
    desired: Option<ProcessSpec>,
    revision: Revision,
    child: Option<Child>,
    kills: u32,
    inbox: mpsc::Receiver<Request>,
    events: mpsc::Sender<ChildEvent>,
    children: mpsc::Receiver<ChildEvent>,
    publish: watch::Sender<ProcessStatus>,
}

#[derive(Debug)]
enum Request {
    Set(ProcessSpec),
    Stop,
    Restart,
    ProbeResult { answered: bool },
}

enum Input {
    End,
    Child(ChildEvent),
    Request(Request),
    Tick,
}

impl SupervisorTask {
    /// Runs until `stop` or until every handle is dropped. Returns once the process has exited
    /// after SIGTERM or SIGKILL, or once SIGKILL has had no effect.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ending = false;
        loop {
            let input = self.next_input(&stop, ending).await;
            ending |= matches!(input, Input::End);
            self.on_input(input);
            if ending && (self.machine.state() == ProcessState::Stopped || self.kills >= MAX_KILLS)
            {
                return;
            }
        }
    }

    async fn next_input(&mut self, stop: &CancellationToken, ending: bool) -> Input {
        let deadline = self.machine.deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            () = stop.cancelled(), if !ending => Input::End,
            Some(event) = self.children.recv() => Input::Child(event),
            request = self.inbox.recv(), if !ending => request.map_or(Input::End, Input::Request),
            () = sleep_until(deadline) => Input::Tick,
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::End | Input::Request(Request::Stop) => {
                self.desired = None;
                self.step(Event::SetDesired(None));
            }
            Input::Request(Request::Set(spec)) => self.set_desired(spec),
            Input::Request(Request::Restart) => {
                if let Some(spec) = self.desired.take() {
                    self.set_desired(spec);
                }
            }
            Input::Request(Request::ProbeResult { answered }) => {
                self.step(Event::Probed { answered });
            }
            Input::Child(event) => self.on_child_event(event),
            Input::Tick => self.step(Event::Tick),
        }
        self.publish_status();
    }

    fn set_desired(&mut self, spec: ProcessSpec) {
        let same = self.desired.as_ref().is_some_and(|desired| desired.command == spec.command);
        if !same || matches!(self.machine.state(), ProcessState::Refused(_)) {
            self.revision.0 += 1;
        }
        self.desired = Some(spec);
        self.step(Event::SetDesired(Some(self.revision)));
    }

    fn on_child_event(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Spawned(child) => {
                let pid = child.pid;
                info!(unit = self.name, pid, "unit started");
                self.child = Some(child);
                self.kills = 0;
                self.publish.send_modify(|status| status.problem = None);
                self.step(Event::Spawned { pid });
            }
            ChildEvent::NotSpawned(error) => self.on_spawn_failed(&error),
            ChildEvent::Refused(refusal) => {
                warn!(unit = self.name, error = %refusal, "unit not started");
                self.publish.send_modify(|status| status.refusal = Some(refusal));
                self.step(Event::Refused);
            }
            ChildEvent::Exited { exit, last_lines } => {
                self.child = None;
                let expected = matches!(self.machine.state(), ProcessState::Stopping { .. });
                self.publish.send_modify(|status| status.last_lines = last_lines);
                self.step(Event::Exited { exit, jitter: rand::random() });
                let pause = self.machine.deadline().map(|until| until - now());
                if expected {
                    info!(unit = self.name, %exit, "unit stopped");
                } else {
                    warn!(unit = self.name, %exit, retry_in = ?pause, "unit exited unexpectedly");
                }
            }
        }
    }

    fn on_spawn_failed(&mut self, error: &io::Error) {
        warn!(unit = self.name, error = %error, "unit start failed");
        let program = self.desired.as_ref().map(|spec| spec.command.program.display().to_string());
        let problem = format!("cannot start {}: {error}", program.unwrap_or_default());
        self.publish.send_modify(|status| status.problem = Some(problem));
        self.step(Event::NotSpawned { jitter: rand::random() });
    }

    fn step(&mut self, event: Event) {
        for effect in self.machine.step(now(), event) {
            match effect {
                Effect::Spawn(_) => self.spawn(),
                Effect::Terminate => self.signal(Signal::TERM),
                Effect::Kill => {
                    self.kills += 1;
                    warn!(unit = self.name, "unit killed: it neither answers nor exits");
                    self.signal(Signal::KILL);
                }
            }
        }
    }

    fn spawn(&mut self) {
        // `desired` is the newest revision; the state machine takes no other while one starts.
        let Some(spec) = self.desired.clone() else { return };
        let events = self.events.clone();
        if let Err(error) = launch(spec.command, spec.start_check, self.log.clone(), events) {
            self.on_spawn_failed(&error);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.signal(signal);
        }
    }

    fn publish_status(&self) {
        let (phase, pid) = match self.machine.state() {
            ProcessState::Stopped => (ProcessPhase::Stopped, None),
            ProcessState::Refused(_) => (ProcessPhase::Refused, None),
            ProcessState::Starting(_) => (ProcessPhase::Starting, None),
            ProcessState::Running { pid, .. } => (ProcessPhase::Running, Some(pid)),
            ProcessState::BackingOff { .. } => (ProcessPhase::BackingOff, None),
            ProcessState::Stopping { pid, .. } => (ProcessPhase::Stopping, Some(pid)),
        };
        self.publish.send_modify(|status| {
            status.phase = phase;
            status.pid = pid;
            status.restarts = self.machine.restarts();
            status.last_exit = self.machine.last_exit();
            if phase != ProcessPhase::Refused {
                status.refusal = None;
            }
        });
    }
}

/// The supervisor's only clock; tokio's, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
