//! Readiness: the one thing that a node waits for, if it is not ready. Pure; [`crate::api::node_status`]
//! collects the inputs.

use std::time::Duration;

use muster_init::units::etcd::{EtcdHealth, EtcdPhase, EtcdStatus};
use muster_types::Role;

use muster_state::etcd::Assignment;

/// Inputs of the readiness check, in the order in which they must become true.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent inputs, each with its own message")]
pub struct ReadinessInputs {
    /// Role of this node.
    pub role: Role,
    /// True if this node was removed from its cluster.
    pub removed: bool,
    /// The condition that formation waits for. `None` once the node belongs to a cluster.
    pub forming: Option<String>,
    /// True if this node has a node certificate.
    pub has_certificate: bool,
    /// Time since this control-plane node's Raft got stuck. `None` if it is not stuck.
    pub stuck_for: Option<Duration>,
    /// A control-plane node knows a leader; a worker is connected to a control-plane node.
    pub connected: bool,
    /// True if this node votes in Raft. Always true on a worker.
    pub votes: bool,
    /// True if the state is founded and has its authorities. Always true on a worker.
    pub founded: bool,
    /// `None` on a worker, and before etcd's controller has reported.
    pub etcd: Option<EtcdInputs>,
}

/// State of this node's etcd.
#[derive(Debug, Clone)]
pub struct EtcdInputs {
    /// Assignment of this node in the etcd plan.
    pub assignment: Assignment,
    /// Status that the unit reports.
    pub status: EtcdStatus,
    /// Reason why the unit did not accept its last spec.
    pub problem: Option<String>,
}

/// Returns the one thing that this node waits for; `None` if it is ready. Reads well after "waits
/// for …".
pub fn waiting_for(inputs: &ReadinessInputs) -> Option<String> {
    if inputs.removed {
        return Some(
            "nothing: it was removed from the cluster; to let this machine join as a new node, \
             stop musterd, move its state directory away and start it again"
                .to_owned(),
        );
    }
    if let Some(forming) = &inputs.forming {
        return Some(forming.clone());
    }
    if let Some(since) = inputs.stuck_for {
        return Some(format!(
            "its disk: Raft has been stuck for {} s, because the disk hangs or the machine is \
             overloaded",
            since.as_secs()
        ));
    }
    let checks = [
        (inputs.connected, connected_words(inputs.role)),
        (inputs.founded, "the first leader to commit the founding and the authorities"),
        (inputs.has_certificate, "its node certificate"),
        (inputs.votes, "a vote in Raft, after it has caught up with the log"),
    ];
    if let Some((_, words)) = checks.iter().find(|(holds, _)| !holds) {
        return Some((*words).to_owned());
    }
    inputs.etcd.as_ref().and_then(etcd_reason)
}

fn connected_words(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => {
            "a leader: a majority of the control-plane nodes must be up and reach each other"
        }
        Role::Worker => "a reply from a control-plane node",
    }
}

fn etcd_reason(inputs: &EtcdInputs) -> Option<String> {
    if let Some(problem) = &inputs.problem {
        return Some(format!("its etcd: {problem}"));
    }
    match &inputs.assignment {
        Assignment::Nothing => Some("its assignment in the etcd plan".to_owned()),
        Assignment::Wait { reason, .. } => Some((*reason).to_owned()),
        Assignment::Run { .. } => unit_reason(&inputs.status),
    }
}

fn unit_reason(status: &EtcdStatus) -> Option<String> {
    let reason = status.problem.as_ref().or(status.last_error.as_ref());
    let because = |words: &str| match reason {
        Some(reason) => Some(format!("{words}: {reason}")),
        None => Some(words.to_owned()),
    };
    match status.phase {
        EtcdPhase::Running => match &status.health {
            EtcdHealth::Serving | EtcdHealth::Learner => None,
            EtcdHealth::Unknown => Some("etcd to answer".to_owned()),
            EtcdHealth::Waiting(why) | EtcdHealth::Silent(why) => Some(format!("etcd: {why}")),
        },
        EtcdPhase::Stopped | EtcdPhase::Starting => because("etcd to start"),
        EtcdPhase::BackingOff => because("etcd to restart"),
        EtcdPhase::Stopping => Some("etcd to stop".to_owned()),
        EtcdPhase::Lost => because("its lost etcd member to be replaced"),
        EtcdPhase::Refused => because("etcd, which is not allowed to start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(health: EtcdHealth) -> EtcdStatus {
        EtcdStatus {
            generation: None,
            version: None,
            data: muster_init::units::etcd::DataState::Present,
            phase: EtcdPhase::Running,
            health,
            pid: Some(7),
            restarts: 0,
            last_exit: None,
            last_error: None,
            problem: None,
        }
    }

    fn ready() -> ReadinessInputs {
        let assignment = Assignment::Run {
            generation: 0,
            initial_state: muster_state::etcd::InitialClusterState::New,
            initial_cluster: Vec::new(),
        };
        ReadinessInputs {
            role: Role::ControlPlane,
            removed: false,
            forming: None,
            has_certificate: true,
            stuck_for: None,
            connected: true,
            votes: true,
            founded: true,
            etcd: Some(EtcdInputs {
                assignment,
                status: running(EtcdHealth::Serving),
                problem: None,
            }),
        }
    }

    #[test]
    fn a_node_with_everything_waits_for_nothing() {
        assert_eq!(waiting_for(&ready()), None);
        let worker = ReadinessInputs { role: Role::Worker, etcd: None, ..ready() };
        assert_eq!(waiting_for(&worker), None);
    }

    #[test]
    fn the_first_missing_thing_is_named_not_what_follows_from_it() {
        let without_leader = ReadinessInputs { connected: false, votes: false, ..ready() };
        assert!(waiting_for(&without_leader).unwrap().contains("leader"));
        let stuck =
            ReadinessInputs { stuck_for: Some(Duration::from_secs(3)), ..without_leader.clone() };
        assert!(waiting_for(&stuck).unwrap().starts_with("its disk"));
        let forming = ReadinessInputs { forming: Some("2 more".to_owned()), ..stuck };
        assert_eq!(waiting_for(&forming).unwrap(), "2 more");
        let removed = ReadinessInputs { removed: true, ..forming };
        assert!(waiting_for(&removed).unwrap().contains("was removed from the cluster"));
    }

    #[test]
    fn etcd_s_own_reason_is_passed_on() {
        let mut inputs = ready();
        let status = EtcdStatus {
            phase: EtcdPhase::BackingOff,
            last_error: Some("disk is full".to_owned()),
            ..running(EtcdHealth::Unknown)
        };
        if let Some(etcd) = &mut inputs.etcd {
            etcd.status = status;
        }
        assert!(waiting_for(&inputs).unwrap().ends_with("disk is full"));
    }
}
