//! The task that owns one process, and the handle to it.

use std::fmt;
use std::io;
use std::time::Instant;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::child::{Child, ChildEvent, Command, Guard, Refusal, launch};
use super::step::{Effect, Event, Exit, Machine, Policy, Revision, State};
use crate::logs::Place;

/// Number of ineffective SIGKILLs after which a process counts as stuck in the kernel.
const VAIN_KILLS: u32 = 3;

/// The desired process.
#[derive(Clone)]
pub struct Spec {
    pub command: Command,
    /// Runs before every start; `None` allows every start.
    pub guard: Option<Guard>,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Published status of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    /// Set while the process runs or is being stopped.
    pub pid: Option<u32>,
    /// Number of starts after the first one.
    pub restarts: u64,
    pub last_exit: Option<Exit>,
    /// Last output lines of the process that exited most recently, oldest first.
    pub last_lines: Vec<String>,
    /// Reason given by the start check; only with [`Phase::Refused`].
    pub refusal: Option<Refusal>,
    /// Error of the last start attempt; `None` after a successful one.
    pub problem: Option<String>,
}

/// Phase of the process, without details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
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
pub struct Gone;

/// Handle to the supervisor: submits the desired process and reads its status.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// Sets the desired process. A changed command restarts the process. The same command changes
    /// nothing, except that a refused start is tried again.
    pub async fn set_spec(&self, spec: Spec) -> Result<(), Gone> {
        self.requests.send(Request::Set(spec)).await.map_err(|_| Gone)
    }

    /// Stops the process; returns once it has exited.
    pub async fn stop(&self) -> Result<(), Gone> {
        self.requests.send(Request::Stop).await.map_err(|_| Gone)?;
        let mut status = self.status.clone();
        status.wait_for(|status| status.phase == Phase::Stopped).await.map_err(|_| Gone)?;
        Ok(())
    }

    /// Restarts the process with the same command.
    pub async fn restart(&self) -> Result<(), Gone> {
        self.requests.send(Request::Restart).await.map_err(|_| Gone)
    }

    /// Reports a probe result: whether the process answered in time. A process that stays silent
    /// for longer than the policy allows is killed and restarted.
    pub async fn asked(&self, answered: bool) -> Result<(), Gone> {
        self.requests.send(Request::Asked { answered }).await.map_err(|_| Gone)
    }

    /// Subscribes to the status.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

/// Creates a supervisor's handle and task: the caller spawns [`Owner::run`].
pub fn supervise(name: &'static str, policy: Policy, log: Place) -> (Handle, Owner) {
    let (requests, inbox) = mpsc::channel(16);
    let (events, children) = mpsc::channel(4);
    let machine = Machine::new(policy);
    let (publish, status) = watch::channel(Status {
        phase: Phase::Stopped,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_lines: Vec::new(),
        refusal: None,
        problem: None,
    });
    let owner = Owner {
        name,
        log,
        machine,
        wanted: None,
        revision: Revision::default(),
        child: None,
        kills: 0,
        inbox,
        events,
        children,
        publish,
    };
    (Handle { requests, status }, owner)
}

/// Task that owns the process. Dropping it, or the future of [`Owner::run`], kills the
/// process.
#[derive(Debug)]
pub struct Owner {
    name: &'static str,
    log: Place,
    machine: Machine,
    wanted: Option<Spec>,
    revision: Revision,
    child: Option<Child>,
    kills: u32,
    inbox: mpsc::Receiver<Request>,
    events: mpsc::Sender<ChildEvent>,
    children: mpsc::Receiver<ChildEvent>,
    publish: watch::Sender<Status>,
}

#[derive(Debug)]
enum Request {
    Set(Spec),
    Stop,
    Restart,
    Asked { answered: bool },
}

enum Input {
    End,
    Child(ChildEvent),
    Request(Request),
    Tick,
}

impl Owner {
    /// Runs until `stop` or until every handle is dropped. Returns once the process has exited
    /// after SIGTERM or SIGKILL, or once SIGKILL has had no effect.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ending = false;
        loop {
            let input = self.next(&stop, ending).await;
            ending |= matches!(input, Input::End);
            self.take(input);
            if ending && (self.machine.state() == State::Stopped || self.kills >= VAIN_KILLS) {
                return;
            }
        }
    }

    async fn next(&mut self, stop: &CancellationToken, ending: bool) -> Input {
        let deadline = self.machine.deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            () = stop.cancelled(), if !ending => Input::End,
            Some(event) = self.children.recv() => Input::Child(event),
            request = self.inbox.recv(), if !ending => request.map_or(Input::End, Input::Request),
            () = at(deadline) => Input::Tick,
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::End | Input::Request(Request::Stop) => {
                self.wanted = None;
                self.step(Event::Want(None));
            }
            Input::Request(Request::Set(spec)) => self.want(spec),
            Input::Request(Request::Restart) => {
                if let Some(spec) = self.wanted.take() {
                    self.want(spec);
                }
            }
            Input::Request(Request::Asked { answered }) => self.step(Event::Asked { answered }),
            Input::Child(event) => self.observe(event),
            Input::Tick => self.step(Event::Tick),
        }
        self.report();
    }

    fn want(&mut self, spec: Spec) {
        let same = self.wanted.as_ref().is_some_and(|wanted| wanted.command == spec.command);
        if !same || matches!(self.machine.state(), State::Refused(_)) {
            self.revision.0 += 1;
        }
        self.wanted = Some(spec);
        self.step(Event::Want(Some(self.revision)));
    }

    fn observe(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Spawned(child) => {
                let pid = child.pid;
                info!(unit = self.name, pid, "unit started");
                self.child = Some(child);
                self.kills = 0;
                self.publish.send_modify(|status| status.problem = None);
                self.step(Event::Spawned { pid });
            }
            ChildEvent::NotSpawned(error) => self.not_spawned(&error),
            ChildEvent::Refused(refusal) => {
                warn!(unit = self.name, error = %refusal, "unit not started");
                self.publish.send_modify(|status| status.refusal = Some(refusal));
                self.step(Event::Refused);
            }
            ChildEvent::Exited { exit, last_lines } => {
                self.child = None;
                let wanted = matches!(self.machine.state(), State::Stopping { .. });
                self.publish.send_modify(|status| status.last_lines = last_lines);
                self.step(Event::Exited { exit, jitter: rand::random() });
                let pause = self.machine.deadline().map(|until| until - now());
                if wanted {
                    info!(unit = self.name, %exit, "unit stopped");
                } else {
                    warn!(unit = self.name, %exit, retry_in = ?pause, "unit exited unexpectedly");
                }
            }
        }
    }

    fn not_spawned(&mut self, error: &io::Error) {
        warn!(unit = self.name, error = %error, "unit start failed");
        let program = self.wanted.as_ref().map(|spec| spec.command.program.display().to_string());
        let problem = format!("start {}: {error}", program.unwrap_or_default());
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
        // `wanted` is the newest revision; the state machine takes no other while one starts.
        let Some(spec) = self.wanted.clone() else { return };
        let events = self.events.clone();
        if let Err(error) = launch(spec.command, spec.guard, self.log.clone(), events) {
            self.not_spawned(&error);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.signal(signal);
        }
    }

    fn report(&self) {
        let (phase, pid) = match self.machine.state() {
            State::Stopped => (Phase::Stopped, None),
            State::Refused(_) => (Phase::Refused, None),
            State::Starting(_) => (Phase::Starting, None),
            State::Running { pid, .. } => (Phase::Running, Some(pid)),
            State::BackingOff { .. } => (Phase::BackingOff, None),
            State::Stopping { pid, .. } => (Phase::Stopping, Some(pid)),
        };
        self.publish.send_modify(|status| {
            status.phase = phase;
            status.pid = pid;
            status.restarts = self.machine.restarts();
            status.last_exit = self.machine.last_exit();
            if phase != Phase::Refused {
                status.refusal = None;
            }
        });
    }
}

/// The supervisor's only clock; tokio's, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
