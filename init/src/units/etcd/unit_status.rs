//! etcd's status in the form of any unit's. Drops the parts that only etcd has.

use super::{EtcdHealth, EtcdPhase, EtcdStatus};
use crate::units::{UnitHealth, UnitName, UnitPhase, UnitStatus};

/// Name of the unit.
pub const NAME: UnitName = UnitName::new("etcd");

impl From<EtcdStatus> for UnitStatus {
    fn from(status: EtcdStatus) -> Self {
        let EtcdStatus { phase, health, pid, restarts, last_exit, last_error, problem, .. } =
            status;
        let phase = match phase {
            EtcdPhase::Stopped => UnitPhase::Stopped,
            EtcdPhase::Starting => UnitPhase::Starting,
            EtcdPhase::Running => UnitPhase::Running,
            EtcdPhase::BackingOff => UnitPhase::BackingOff,
            EtcdPhase::Stopping => UnitPhase::Stopping,
            EtcdPhase::Lost => UnitPhase::Lost,
            EtcdPhase::Refused => UnitPhase::Refused,
        };
        let health = match health {
            EtcdHealth::Unknown => UnitHealth::Unknown,
            EtcdHealth::Serving | EtcdHealth::Learner => UnitHealth::Healthy,
            EtcdHealth::Waiting(why) => UnitHealth::Waiting(why),
            EtcdHealth::Silent(why) => UnitHealth::Silent(why),
        };
        Self { phase, health, pid, restarts, last_exit, last_error, problem }
    }
}
