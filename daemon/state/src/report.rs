//! Reports by members about themselves. Liveness is not in them: gossip has it.

use super::members::{check_addresses, check_version};
use super::{ApplyContext, ClusterState, Outcome, Refusal, RefusalKind, Report};

impl ClusterState {
    /// Returns whether committing this report would change anything. A report that would not is
    /// never proposed.
    pub fn would_change(&self, report: &Report) -> bool {
        self.check_report(report).is_ok() && self.differs(report)
    }

    pub(super) fn report(&mut self, at: ApplyContext, report: &Report) -> Result<Outcome, Refusal> {
        self.check_report(report)?;
        if !self.differs(report) {
            return Ok(Outcome::Unchanged);
        }
        if let Some(etcd) = &report.etcd {
            self.etcd.record_report(at, &report.node, etcd);
        }
        if let Some(member) = self.members.get_mut(&report.node) {
            member.addresses.clone_from(&report.addresses);
            member.version.clone_from(&report.version);
            member.config_version = report.config_version;
            member.etcd.clone_from(&report.etcd);
        }
        Ok(Outcome::Done)
    }

    fn differs(&self, report: &Report) -> bool {
        let changed = self.members.get(&report.node).is_some_and(|m| {
            m.addresses != report.addresses
                || m.version != report.version
                || m.config_version != report.config_version
                || m.etcd != report.etcd
        });
        changed || report.etcd.as_ref().is_some_and(|e| self.etcd.changes_plan(&report.node, e))
    }

    fn check_report(&self, report: &Report) -> Result<(), Refusal> {
        let member = self.members.get(&report.node).ok_or_else(|| not_a_member(report.node))?;
        check_addresses(&report.addresses)?;
        check_version(&report.version)?;
        if let Some(etcd) = &report.etcd {
            check_version(&etcd.version)?;
            if !member.is_control_plane() {
                return Err(Refusal::new(
                    RefusalKind::Invalid,
                    format!("{} is a worker and has no etcd to report", member.name),
                ));
            }
        }
        Ok(())
    }
}

fn not_a_member(node: muster_types::NodeId) -> Refusal {
    Refusal::new(
        RefusalKind::NotAMember,
        format!("node {} is not a member; see `musterctl members`", node.short()),
    )
}
