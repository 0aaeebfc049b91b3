//! What to do about one process. Decides only: the caller spawns, signals and waits.

use std::fmt;
use std::time::{Duration, Instant};

/// How patient the supervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Longest pause before the first restart; doubles with every further failure in a row.
    pub backoff_first: Duration,
    /// Longest pause before any restart.
    pub backoff_cap: Duration,
    /// A process that ran this long failed for the first time again.
    pub settle: Duration,
    /// How long a process may take to end after SIGTERM, before SIGKILL.
    pub stop_within: Duration,
    /// How long a process may take to its first answer, if anyone asks it.
    pub answer_within: Duration,
    /// How long a process that did answer may be silent before it counts as hung.
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

/// Unanswered questions in a row before a process can count as hung, however long they took: after
/// this process itself was held up, one expired question proves nothing.
const HUNG_QUESTIONS: u32 = 3;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The kernel would not say.
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

/// Which of the wanted commands, in the order they were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// What the process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing runs and nothing is wanted.
    Stopped,
    /// The guard said no to this revision; only another one is tried.
    Refused(Revision),
    /// Spawn was asked for.
    Starting(Revision),
    Running {
        revision: Revision,
        pid: u32,
        since: Instant,
        answered: bool,
        silence: Option<Silence>,
    },
    /// Waits before the next try.
    BackingOff { revision: Revision, until: Instant },
    /// Told to end; killed at the deadline.
    Stopping { pid: u32, until: Instant, why: Why },
}

/// Questions in a row that a process did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    since: Instant,
    questions: u32,
}

/// Why a process is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not wanted, or another revision is.
    Wanted,
    /// It does not answer.
    Hung,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// This revision should run, or nothing.
    Want(Option<Revision>),
    Spawned {
        pid: u32,
    },
    /// The process could not be started. `jitter` is random, 0.0 to 1.0.
    NotSpawned {
        jitter: f64,
    },
    /// The guard forbids the start.
    Refused,
    /// `jitter` is random, 0.0 to 1.0.
    Exited {
        exit: Exit,
        jitter: f64,
    },
    /// The process was asked and did, or did not, answer in time.
    Asked {
        answered: bool,
    },
    /// Time passed.
    Tick,
}

/// What the caller must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Spawn(Revision),
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// The life of one process.
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

    /// How often the process was started again since its first start.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    pub fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// When a [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::BackingOff { until, .. } | State::Stopping { until, .. } => Some(until),
            State::Stopped | State::Refused(_) | State::Starting(_) | State::Running { .. } => None,
        }
    }

    /// Takes one event and says what to do about it, in order.
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
            // Stale or early: the process is in another state by now.
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

    /// One step from what is towards what is wanted; none if they agree or an answer is awaited.
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
        // A hung process does not hear SIGTERM: at once to SIGKILL, which a stopped one obeys too.
        let until = now + self.policy.stop_within;
        self.state = State::Stopping { pid: *pid, until, why: Why::Hung };
        Some(Effect::Kill)
    }
}

#[cfg(test)]
#[path = "step_test.rs"]
mod tests;
