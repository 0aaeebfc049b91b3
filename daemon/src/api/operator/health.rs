//! The checks of `musterctl health`: each is one condition, with the findings that violate it.

use std::time::Duration;

use muster_messages::operator as wire;
use tokio::time::timeout;
use tonic::Status;

use super::context::CallContext;
use super::{OperatorContext, alarms};
use muster_state::etcd::EtcdMemberPhase;
use muster_state::{ClusterState, failure_tolerance};

/// Maximum clock offset between two nodes, in milliseconds. Certificates are backdated by more;
/// beyond this offset, logs and leases become confusing.
const MAX_CLOCK_OFFSET: u64 = 2_000;

/// Time limit for the group to confirm that it has a majority.
const READ_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Time limit for etcd to answer a check: less than an operator waits for the whole reply.
const ETCD_TIMEOUT: Duration = Duration::from_secs(4);

impl OperatorContext {
    pub(super) async fn health(
        &self,
        caller: &CallContext,
        _: wire::HealthRequest,
    ) -> Result<wire::HealthReply, Status> {
        let current = self.group.catch_up_within(READ_TIMEOUT).await;
        let state = current.as_ref().map_or_else(|_| self.group.state(), std::sync::Arc::clone);
        let leaderless: Vec<_> = current.err().map(|error| error.to_string()).into_iter().collect();
        // Without a leader this node's state may be old.
        let confirmed = |findings: Vec<String>| match leaderless.first() {
            None => Ok(findings),
            Some(_) => Err("no leader confirms this node's state".to_owned()),
        };
        let (nodes, silent, alarms) = tokio::join!(
            self.status_of_all(&caller.key),
            self.etcd_unreachable(),
            self.etcd_alarms_of_all()
        );
        let checks = vec![
            check("raft has a leader and a majority", Ok(leaderless.clone())),
            check("every control-plane node votes in raft", confirmed(self.without_vote(&state))),
            check("every member is reachable", Ok(unreachable(&nodes))),
            check("every member is ready", Ok(waiting(&nodes))),
            check("every control-plane node votes in etcd", confirmed(outside_etcd(&state))),
            check("etcd answers on every member", silent),
            check("etcd has no alarm", alarms),
            check("clocks agree", Ok(clocks(&nodes))),
        ];
        let tolerance = failure_tolerance(&state, &self.removal_context(), None);
        Ok(wire::HealthReply { checks, failure_tolerance: Some(tolerance) })
    }

    fn without_vote(&self, state: &ClusterState) -> Vec<String> {
        let seen = self.seen(None);
        let missing = state.control_plane_ids().into_iter().filter(|id| !seen.voters.contains(id));
        missing.map(|id| format!("{} is not a voter yet", self.name(&id))).collect()
    }

    async fn etcd_unreachable(&self) -> Result<Vec<String>, String> {
        let status = with_etcd_timeout(self.status_of_etcd()).await?;
        let findings = status.members.into_iter().filter_map(|member| {
            // An alarm is an answer, and another check reports it.
            let errors: Vec<_> =
                member.errors.into_iter().filter(|error| !alarms::is_alarm(error)).collect();
            let text = format!("{}{}", member.unreachable, errors.join(", "));
            (!text.is_empty()).then(|| format!("{}: {text}", member.node))
        });
        Ok(findings.collect())
    }

    async fn etcd_alarms_of_all(&self) -> Result<Vec<String>, String> {
        let reply = with_etcd_timeout(self.alarms()).await?;
        let finding = |alarm: wire::EtcdAlarm| match alarm.node.as_str() {
            "" => format!("unknown member {}: {}", alarm.member_id, alarm.alarm),
            node => format!("{node}: {}", alarm.alarm),
        };
        Ok(reply.alarms.into_iter().map(finding).collect())
    }
}

/// Returns the reply of etcd, or the reason why there is none.
async fn with_etcd_timeout<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, String> {
    match timeout(ETCD_TIMEOUT, asked).await {
        Ok(reply) => reply.map_err(|status| status.message().to_owned()),
        Err(_) => Err(format!("no answer within {ETCD_TIMEOUT:?}")),
    }
}

/// Creates a check that passes if there are no findings. The error is the reason why the condition
/// could not be checked: then it is unknown.
fn check(name: &str, findings: Result<Vec<String>, String>) -> wire::Check {
    let (passed, detail, unknown) = match findings {
        Ok(findings) => (findings.is_empty(), findings.join("; "), false),
        Err(why) => (false, format!("unknown: {why}"), true),
    };
    wire::Check { name: name.to_owned(), passed, detail, unknown }
}

fn unreachable(nodes: &[wire::NodeStatusReply]) -> Vec<String> {
    let silent = nodes.iter().filter(|node| !node.unreachable.is_empty());
    silent.map(|node| node.unreachable.clone()).collect()
}

fn waiting(nodes: &[wire::NodeStatusReply]) -> Vec<String> {
    let waiting = nodes.iter().filter(|node| node.unreachable.is_empty() && !node.ready);
    waiting.map(|node| format!("{} waits for {}", node.name, node.waiting_for)).collect()
}

fn outside_etcd(state: &ClusterState) -> Vec<String> {
    let mut findings: Vec<_> = state
        .etcd()
        .nodes()
        .filter(|(_, record)| !matches!(record.phase, EtcdMemberPhase::Voter { .. }))
        .map(|(_, record)| format!("{} is {}", record.peer.name, record.phase.as_str()))
        .collect();
    findings.extend(
        state
            .etcd()
            .leftover_members()
            .map(|(_, gone)| format!("{} was removed but is still a member", gone.peer.name)),
    );
    if state.authorities().is_none() {
        findings.push("the cluster has no etcd authority yet".to_owned());
    }
    findings
}

fn clocks(nodes: &[wire::NodeStatusReply]) -> Vec<String> {
    let off = nodes.iter().filter(|node| {
        node.unreachable.is_empty() && node.clock_offset_ms.unsigned_abs() > MAX_CLOCK_OFFSET
    });
    off.map(|node| {
        let seconds = node.clock_offset_ms.unsigned_abs() / 1000;
        let side = if node.clock_offset_ms > 0 { "ahead of" } else { "behind" };
        format!("the clock of {} is {seconds} s {side} this node's", node.name)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: an etcd that did not answer was an alarm, and "ok" was reported without a leader.
    #[test]
    fn a_condition_that_was_not_checked_is_unknown() {
        let unknown = check("etcd has no alarm", Err("no answer".to_owned()));
        assert!(!unknown.passed && unknown.unknown);
        assert_eq!(unknown.detail, "unknown: no answer");
        let failed = check("etcd has no alarm", Ok(vec!["cp-2: CORRUPT".to_owned()]));
        assert!(!failed.passed && !failed.unknown);
        assert!(check("etcd has no alarm", Ok(Vec::new())).passed);
    }
}
