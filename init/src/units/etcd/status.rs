//! Published status of this node's etcd. Plain data; `task` computes it.

use muster_types::etcd::{DataState, EtcdGeneration};

use super::binary::Version;
use super::probe::ProbeResult;
use crate::units::{UnitHealth, UnitName, UnitStatus};

/// Name of the unit.
pub const NAME: UnitName = UnitName::new("etcd");

/// Published status of this node's etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Status as of any unit.
    pub unit: UnitStatus,
    /// Desired generation; `None` when no etcd is desired.
    pub generation: Option<EtcdGeneration>,
    pub version: Option<Version>,
    /// State of the desired generation's data.
    pub data: DataState,
    /// True if the last probe found a healthy learner. It follows, and answers no linearizable read.
    pub is_learner: bool,
}

impl From<ProbeResult> for UnitHealth {
    fn from(result: ProbeResult) -> Self {
        match result {
            ProbeResult::Serving | ProbeResult::Learner => Self::Healthy,
            ProbeResult::Waiting(why) => Self::Waiting(why),
            ProbeResult::Silent(why) => Self::Silent(why),
        }
    }
}

impl EtcdStatus {
    /// The status before any etcd is desired.
    pub(super) const STOPPED: Self = Self {
        unit: UnitStatus::STOPPED,
        generation: None,
        version: None,
        data: DataState::Absent,
        is_learner: false,
    };
}
