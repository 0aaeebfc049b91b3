//! The programs that a node supervises, one folder each, and the status that every one of them
//! reports. Does not list them: the caller creates the units of its node.

pub mod etcd;

use std::fmt;

use crate::supervisor::Exit;

/// Name of a unit, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(&'static str);

impl UnitName {
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Status of any unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStatus {
    pub phase: UnitPhase,
    pub health: UnitHealth,
    /// `None` without a process.
    pub pid: Option<u32>,
    /// Number of starts after the first one.
    pub restarts: u64,
    /// `None` if no process of it has exited.
    pub last_exit: Option<Exit>,
    /// Last error that the most recently exited process logged.
    pub last_error: Option<String>,
    /// Reason why it does not run although it should.
    pub problem: Option<String>,
}

impl UnitStatus {
    /// A unit that has not been started.
    pub const STOPPED: Self = Self {
        phase: UnitPhase::Stopped,
        health: UnitHealth::Unknown,
        pid: None,
        restarts: 0,
        last_exit: None,
        last_error: None,
        problem: None,
    };
}

/// Phase of a unit's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitPhase {
    Stopped,
    Starting,
    Running,
    BackingOff,
    Stopping,
    /// Its data is lost: it stays down until it is replaced.
    Lost,
    /// It must not start; `problem` holds the reason.
    Refused,
}

/// Health according to the unit's last probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitHealth {
    /// Not probed since its start, or not running.
    Unknown,
    Healthy,
    /// Running but not serving; holds its own reason.
    Waiting(String),
    /// Does not answer; holds the error.
    Silent(String),
}

impl UnitHealth {
    pub fn is_healthy(&self) -> bool {
        *self == Self::Healthy
    }
}
