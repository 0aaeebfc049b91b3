//! The checks of `musterctl health`: each is one condition, with the findings that violate it.

use std::time::Duration;

use muster_messages::operator as wire;
use tokio::time::timeout;
use tonic::Status;

use super::OperatorContext;
use super::context::Caller;
use muster_state::ClusterState;
use muster_state::etcd::EtcdMemberPhase;

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
        caller: &Caller,
        _: wire::HealthRequest,
    ) -> Result<wire::HealthReply, Status> {
        let current = self.group.catch_up_within(READ_TIMEOUT).await;
        let state = current.as_ref().map_or_else(|_| self.group.state(), std::sync::Arc::clone);
        let leaderless: Vec<_> = current.err().map(|error| error.to_string()).into_iter().collect();
        let (nodes, silent, alarms) = tokio::join!(
            self.status_of_all(&caller.key),
            self.etcd_unreachable(),
            self.etcd_alarms_of_all()
        );
        let checks = vec![
            check("raft has a leader and a majority", &leaderless),
            check("every control-plane node votes in raft", &self.without_vote(&state)),
            check("every member is reachable", &unreachable(&nodes)),
            check("every member is ready", &waiting(&nodes)),
            check("every control-plane node votes in etcd", &outside_etcd(&state)),
            check("etcd answers on every member", &silent),
            check("etcd has no alarm", &alarms),
            check("clocks agree", &clocks(&nodes)),
        ];
        Ok(wire::HealthReply { checks })
    }

    fn without_vote(&self, state: &ClusterState) -> Vec<String> {
        let seen = self.seen(None);
        let missing = state.control_plane_ids().into_iter().filter(|id| !seen.voters.contains(id));
        missing.map(|id| format!("{} is not a voter yet", self.name(&id))).collect()
    }

    async fn etcd_unreachable(&self) -> Vec<String> {
        match with_etcd_timeout(self.status_of_etcd()).await {
            Ok(status) => status
                .members
                .into_iter()
                .filter(|member| !member.unreachable.is_empty() || !member.errors.is_empty())
                .map(|m| format!("{}: {}{}", m.node, m.unreachable, m.errors.join(", ")))
                .collect(),
            Err(status) => vec![status.message().to_owned()],
        }
    }

    async fn etcd_alarms_of_all(&self) -> Vec<String> {
        match with_etcd_timeout(self.alarms()).await {
            Ok(alarms) => {
                alarms.alarms.into_iter().map(|a| format!("{}: {}", a.node, a.alarm)).collect()
            }
            Err(status) => vec![status.message().to_owned()],
        }
    }
}

async fn with_etcd_timeout<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = || Status::deadline_exceeded(format!("no answer within {ETCD_TIMEOUT:?}"));
    timeout(ETCD_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
}

/// Creates a check that passes if there are no findings.
fn check(name: &str, findings: &[String]) -> wire::Check {
    let passed = findings.is_empty();
    wire::Check { name: name.to_owned(), passed, detail: findings.join("; ") }
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
