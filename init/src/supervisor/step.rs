//! Decisions about one process. No I/O: the caller spawns, signals and waits.

use std::fmt;
use std::time::{Duration, Instant};

/// Timing of restarts, stops and hang detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Longest delay before the first restart; doubles with every further consecutive failure.
    pub initial_backoff: Duration,
    /// Upper limit of the restart delay.
    pub max_backoff: Duration,
    /// Running time after which the count of consecutive failures is reset.
    pub stable_after: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
    /// Time limit for the first answer after a start, if the process is probed.
    pub first_answer_timeout: Duration,
    /// Silence after which a process that has answered before counts as hung.
    pub hang_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
            stable_after: Duration::from_mins(1),
            stop_timeout: Duration::from_secs(10),
            first_answer_timeout: Duration::from_mins(5),
            hang_timeout: Duration::from_secs(20),
        }
    }
}

/// Consecutive missed probes before a process can count as hung, however long they took. If this
/// process itself was suspended, one expired probe proves nothing.
const MIN_MISSED_PROBES: u32 = 3;

/// Exit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The kernel did not report it.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// Number of a desired command, in order of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// State of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// Nothing runs and nothing is desired.
    Stopped,
    /// The start check refused this revision; only another one is tried.
    Refused(Revision),
    /// Spawn was requested.
    Starting(Revision),
    Running {
        revision: Revision,
        pid: u32,
        since: Instant,
        answered: bool,
        missed: Option<MissedProbes>,
    },
    /// Waits before the next attempt.
    BackingOff { revision: Revision, until: Instant },
    /// SIGTERM was sent; SIGKILL follows at `until`.
    Stopping { pid: u32, until: Instant, reason: StopReason },
}

/// Consecutive probes that a process did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedProbes {
    since: Instant,
    count: u32,
}

/// Reason for stopping a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// No process is desired, or another revision is.
    Requested,
    /// It does not answer.
    Hung,
}

/// Input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The desired revision; `None` to stop.
    SetDesired(Option<Revision>),
    Spawned {
        pid: u32,
    },
    /// The process could not be started. `jitter` is random, 0.0 to 1.0.
    NotSpawned {
        jitter: f64,
    },
    /// The start check refused the start.
    Refused,
    /// `jitter` is random, 0.0 to 1.0.
    Exited {
        exit: Exit,
        jitter: f64,
    },
    /// A probe was answered in time, or was not.
    Probed {
        answered: bool,
    },
    /// The deadline may have passed.
    Tick,
}

/// Action for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Spawn(Revision),
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// State machine of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMachine {
    policy: Policy,
    desired: Option<Revision>,
    state: ProcessState,
    failures: u32,
    restarts: u64,
    last_exit: Option<Exit>,
}

impl StateMachine {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            desired: None,
            state: ProcessState::Stopped,
            failures: 0,
            restarts: 0,
            last_exit: None,
        }
    }

    pub fn state(&self) -> ProcessState {
        self.state
    }

    /// Number of starts after the first one.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    pub fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// Time at which an [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            ProcessState::BackingOff { until, .. } | ProcessState::Stopping { until, .. } => {
                Some(until)
            }
            ProcessState::Stopped
            | ProcessState::Refused(_)
            | ProcessState::Starting(_)
            | ProcessState::Running { .. } => None,
        }
    }

    /// Handles one event and returns the actions to perform, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (self.state, event) {
            (_, Event::SetDesired(desired)) => {
                if desired != self.desired {
                    self.failures = 0;
                }
                self.desired = desired;
            }
            (ProcessState::Starting(revision), Event::Spawned { pid }) => {
                self.state = ProcessState::Running {
                    revision,
                    pid,
                    since: now,
                    answered: false,
                    missed: None,
                };
            }
            (ProcessState::Starting(revision), Event::NotSpawned { jitter }) => {
                self.back_off(revision, now, jitter);
            }
            (ProcessState::Starting(revision), Event::Refused) => {
                self.state = ProcessState::Refused(revision);
            }
            (ProcessState::Running { revision, since, .. }, Event::Exited { exit, jitter }) => {
                self.last_exit = Some(exit);
                if now.saturating_duration_since(since) >= self.policy.stable_after {
                    self.failures = 0;
                }
                self.back_off(revision, now, jitter);
            }
            (ProcessState::Stopping { reason, .. }, Event::Exited { exit, jitter }) => {
                self.last_exit = Some(exit);
                self.state = ProcessState::Stopped;
                if let (StopReason::Hung, Some(revision)) = (reason, self.desired) {
                    self.back_off(revision, now, jitter);
                }
            }
            (ProcessState::Running { .. }, Event::Probed { answered }) => {
                effects.extend(self.on_probe(now, answered));
            }
            (ProcessState::Stopping { pid, until, reason }, Event::Tick) if now >= until => {
                self.state =
                    ProcessState::Stopping { pid, until: now + self.policy.stop_timeout, reason };
                effects.push(Effect::Kill);
            }
            (ProcessState::BackingOff { revision, until }, Event::Tick) if now >= until => {
                self.restarts += 1;
                self.state = ProcessState::Starting(revision);
                effects.push(Effect::Spawn(revision));
            }
            // Stale or early: the process is already in another state.
            (
                ProcessState::Stopped
                | ProcessState::Refused(_)
                | ProcessState::Starting(_)
                | ProcessState::Running { .. }
                | ProcessState::BackingOff { .. }
                | ProcessState::Stopping { .. },
                Event::Spawned { .. }
                | Event::NotSpawned { .. }
                | Event::Refused
                | Event::Exited { .. }
                | Event::Probed { .. }
                | Event::Tick,
            ) => {}
        }
        effects.extend(self.converge(now));
        effects
    }

    /// Takes one step from the current to the desired state. Does nothing if they agree or an event
    /// is pending.
    fn converge(&mut self, now: Instant) -> Option<Effect> {
        match (self.state, self.desired) {
            (ProcessState::Running { revision, pid, .. }, desired) if desired != Some(revision) => {
                let until = now + self.policy.stop_timeout;
                self.state = ProcessState::Stopping { pid, until, reason: StopReason::Requested };
                Some(Effect::Terminate)
            }
            (ProcessState::Refused(_) | ProcessState::BackingOff { .. }, None) => {
                self.state = ProcessState::Stopped;
                None
            }
            (
                ProcessState::Refused(was) | ProcessState::BackingOff { revision: was, .. },
                Some(desired),
            ) if was != desired => self.start(desired),
            (ProcessState::Stopped, Some(desired)) => self.start(desired),
            (
                ProcessState::Stopped
                | ProcessState::Refused(_)
                | ProcessState::Starting(_)
                | ProcessState::Running { .. }
                | ProcessState::BackingOff { .. }
                | ProcessState::Stopping { .. },
                _,
            ) => None,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "reads as one arm of `converge`")]
    fn start(&mut self, revision: Revision) -> Option<Effect> {
        if self.last_exit.is_some() {
            self.restarts += 1;
        }
        self.state = ProcessState::Starting(revision);
        Some(Effect::Spawn(revision))
    }

    fn back_off(&mut self, revision: Revision, now: Instant, jitter: f64) {
        let doubled = self.policy.initial_backoff.saturating_mul(1 << self.failures.min(20));
        let longest = doubled.min(self.policy.max_backoff);
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.state = ProcessState::BackingOff { revision, until: now + pause };
    }

    fn on_probe(&mut self, now: Instant, was_answered: bool) -> Option<Effect> {
        let ProcessState::Running { pid, since, answered, missed, .. } = &mut self.state else {
            return None;
        };
        if was_answered {
            (*answered, *missed) = (true, None);
            return None;
        }
        let missed_probes = missed.get_or_insert(MissedProbes { since: now, count: 0 });
        missed_probes.count += 1;
        let (from, limit) = if *answered {
            (missed_probes.since, self.policy.hang_timeout)
        } else {
            (*since, self.policy.first_answer_timeout)
        };
        let hung = missed_probes.count >= MIN_MISSED_PROBES
            && now.saturating_duration_since(from) >= limit;
        if !hung {
            return None;
        }
        // A hung process ignores SIGTERM. SIGKILL also works on a stopped one.
        let until = now + self.policy.stop_timeout;
        self.state = ProcessState::Stopping { pid: *pid, until, reason: StopReason::Hung };
        Some(Effect::Kill)
    }
}

#[cfg(test)]
mod tests;
