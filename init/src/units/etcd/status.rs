//! Published status of this node's etcd. Plain data; `task` computes it.

use muster_types::etcd::{DataState, EtcdGeneration};

use super::binary::Version;
use super::probe::ProbeResult;
use crate::supervisor::Exit;

/// Published status of this node's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Desired generation; `None` when no etcd is desired.
    pub generation: Option<EtcdGeneration>,
    pub version: Option<Version>,
    pub phase: EtcdPhase,
    /// State of the desired generation's data.
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

impl Default for EtcdStatus {
    /// The status before any etcd is desired.
    fn default() -> Self {
        Self {
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
        }
    }
}
