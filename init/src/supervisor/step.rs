//! Decisions about one process. No I/O: the caller spawns, signals and waits.

use std::fmt;
use std::time::{Duration, Instant};

/// Timing of restarts, stops and hang detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Longest delay before the first restart; doubles with every further consecutive failure.
    pub backoff_first: Duration,
    /// Upper limit of the restart delay.
    pub backoff_cap: Duration,
    /// Running time after which the count of consecutive failures is reset.
    pub settle: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_within: Duration,
    /// Time limit for the first answer after a start, if the process is probed.
    pub answer_within: Duration,
    /// Silence after which a process that has answered before counts as hung.
    pub hung_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(250),
            backoff_cap: Duration::from_secs(30),
            settle: Duration::from_mins(1),
            stop_within: Duration::from_secs(10),
            answer_within: Duration::from_mins(5),
            hung_after: Duration::from_secs(20),
        }
    }
}

/// Consecutive missed probes before a process can count as hung, however long they took. If this
/// process itself was suspended, one expired probe proves nothing.
const HUNG_QUESTIONS: u32 = 3;

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
pub enum State {
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
        silence: Option<Silence>,
    },
    /// Waits before the next attempt.
    BackingOff { revision: Revision, until: Instant },
    /// SIGTERM was sent; SIGKILL follows at `until`.
    Stopping { pid: u32, until: Instant, why: Why },
}

/// Consecutive probes that a process did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    since: Instant,
    questions: u32,
}

/// Reason for stopping a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No process is desired, or another revision is.
    Wanted,
    /// It does not answer.
    Hung,
}

/// Input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The desired revision; `None` to stop.
    Want(Option<Revision>),
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
    Asked {
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
pub struct Machine {
    policy: Policy,
    wanted: Option<Revision>,
    state: State,
    failures: u32,
    restarts: u64,
    last_exit: Option<Exit>,
}

impl Machine {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            wanted: None,
            state: State::Stopped,
            failures: 0,
            restarts: 0,
            last_exit: None,
        }
    }

    pub fn state(&self) -> State {
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
            State::BackingOff { until, .. } | State::Stopping { until, .. } => Some(until),
            State::Stopped | State::Refused(_) | State::Starting(_) | State::Running { .. } => None,
        }
    }

    /// Handles one event and returns the actions to perform, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (self.state, event) {
            (_, Event::Want(wanted)) => {
                if wanted != self.wanted {
                    self.failures = 0;
                }
                self.wanted = wanted;
            }
            (State::Starting(revision), Event::Spawned { pid }) => {
                self.state =
                    State::Running { revision, pid, since: now, answered: false, silence: None };
            }
            (State::Starting(revision), Event::NotSpawned { jitter }) => {
                self.back_off(revision, now, jitter);
            }
            (State::Starting(revision), Event::Refused) => self.state = State::Refused(revision),
            (State::Running { revision, since, .. }, Event::Exited { exit, jitter }) => {
                self.last_exit = Some(exit);
                if now.saturating_duration_since(since) >= self.policy.settle {
                    self.failures = 0;
                }
                self.back_off(revision, now, jitter);
            }
            (State::Stopping { why, .. }, Event::Exited { exit, jitter }) => {
                self.last_exit = Some(exit);
                self.state = State::Stopped;
                if let (Why::Hung, Some(revision)) = (why, self.wanted) {
                    self.back_off(revision, now, jitter);
                }
            }
            (State::Running { .. }, Event::Asked { answered }) => {
                effects.extend(self.hear(now, answered));
            }
            (State::Stopping { pid, until, why }, Event::Tick) if now >= until => {
                self.state = State::Stopping { pid, until: now + self.policy.stop_within, why };
                effects.push(Effect::Kill);
            }
            (State::BackingOff { revision, until }, Event::Tick) if now >= until => {
                self.restarts += 1;
                self.state = State::Starting(revision);
                effects.push(Effect::Spawn(revision));
            }
            // Stale or early: the process is already in another state.
            (
                State::Stopped
                | State::Refused(_)
                | State::Starting(_)
                | State::Running { .. }
                | State::BackingOff { .. }
                | State::Stopping { .. },
                Event::Spawned { .. }
                | Event::NotSpawned { .. }
                | Event::Refused
                | Event::Exited { .. }
                | Event::Asked { .. }
                | Event::Tick,
            ) => {}
        }
        effects.extend(self.converge(now));
        effects
    }

    /// Takes one step from the current to the desired state. Does nothing if they agree or an event
    /// is pending.
    fn converge(&mut self, now: Instant) -> Option<Effect> {
        match (self.state, self.wanted) {
            (State::Running { revision, pid, .. }, wanted) if wanted != Some(revision) => {
                let until = now + self.policy.stop_within;
                self.state = State::Stopping { pid, until, why: Why::Wanted };
                Some(Effect::Terminate)
            }
            (State::Refused(_) | State::BackingOff { .. }, None) => {
                self.state = State::Stopped;
                None
            }
            (State::Refused(was) | State::BackingOff { revision: was, .. }, Some(wanted))
                if was != wanted =>
            {
                self.start(wanted)
            }
            (State::Stopped, Some(wanted)) => self.start(wanted),
            (
                State::Stopped
                | State::Refused(_)
                | State::Starting(_)
                | State::Running { .. }
                | State::BackingOff { .. }
                | State::Stopping { .. },
                _,
            ) => None,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "reads as one arm of `converge`")]
    fn start(&mut self, revision: Revision) -> Option<Effect> {
        if self.last_exit.is_some() {
            self.restarts += 1;
        }
        self.state = State::Starting(revision);
        Some(Effect::Spawn(revision))
    }

    fn back_off(&mut self, revision: Revision, now: Instant, jitter: f64) {
        let doubled = self.policy.backoff_first.saturating_mul(1 << self.failures.min(20));
        let longest = doubled.min(self.policy.backoff_cap);
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.state = State::BackingOff { revision, until: now + pause };
    }

    fn hear(&mut self, now: Instant, heard: bool) -> Option<Effect> {
        let State::Running { pid, since, answered, silence, .. } = &mut self.state else {
            return None;
        };
        if heard {
            (*answered, *silence) = (true, None);
            return None;
        }
        let silent = silence.get_or_insert(Silence { since: now, questions: 0 });
        silent.questions += 1;
        let (from, limit) = if *answered {
            (silent.since, self.policy.hung_after)
        } else {
            (*since, self.policy.answer_within)
        };
        let hung =
            silent.questions >= HUNG_QUESTIONS && now.saturating_duration_since(from) >= limit;
        if !hung {
            return None;
        }
        // A hung process ignores SIGTERM. SIGKILL also works on a stopped one.
        let until = now + self.policy.stop_within;
        self.state = State::Stopping { pid: *pid, until, why: Why::Hung };
        Some(Effect::Kill)
    }
}

#[cfg(test)]
#[path = "step_test.rs"]
mod tests;
