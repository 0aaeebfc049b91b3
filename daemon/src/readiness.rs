//! Readiness: the one thing that a node waits for, if it is not ready. Pure; [`crate::api::local`]
//! collects the inputs.

use std::time::Duration;

use muster_init::units::etcd::{Health, Phase, Status as EtcdStatus};
use muster_types::Role;

use muster_state::etcd::Assignment;

/// Inputs of the readiness check, in the order in which they must become true.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent inputs, each with its own message")]
pub struct Facts {
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
    pub in_touch: bool,
    /// True if this node votes in Raft. Always true on a worker.
    pub votes: bool,
    /// True if the state is founded and has its authorities. Always true on a worker.
    pub founded: bool,
    /// `None` on a worker, and before etcd's controller has reported.
    pub etcd: Option<EtcdFacts>,
}

/// State of this node's etcd.
#[derive(Debug, Clone)]
pub struct EtcdFacts {
    /// Assignment of this node in the etcd plan.
    pub assignment: Assignment,
    /// Status that the unit reports.
    pub status: EtcdStatus,
    /// Reason why the unit did not accept its last spec.
    pub problem: Option<String>,
}

/// Returns the one thing that this node waits for; `None` if it is ready. Reads well after "waits
/// for …".
pub fn waiting_for(facts: &Facts) -> Option<String> {
    if facts.removed {
        return Some(
            "nothing: it was removed from the cluster; to let this machine join as a new node, \
             stop musterd, move its state directory away and start it again"
                .to_owned(),
        );
    }
    if let Some(forming) = &facts.forming {
        return Some(forming.clone());
    }
    if let Some(since) = facts.stuck_for {
        return Some(format!(
            "its disk: Raft has been stuck for {} s, because the disk hangs or the machine is \
             overloaded",
            since.as_secs()
        ));
    }
    let checks = [
        (facts.in_touch, in_touch_words(facts.role)),
        (facts.founded, "the first leader to commit the founding and the authorities"),
        (facts.has_certificate, "its node certificate"),
        (facts.votes, "a vote in Raft, after it has caught up with the log"),
    ];
    if let Some((_, words)) = checks.iter().find(|(holds, _)| !holds) {
        return Some((*words).to_owned());
    }
    facts.etcd.as_ref().and_then(etcd)
}

fn in_touch_words(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => {
            "a leader: a majority of the control-plane nodes must be up and reach each other"
        }
        Role::Worker => "a reply from a control-plane node",
    }
}

fn etcd(facts: &EtcdFacts) -> Option<String> {
    if let Some(problem) = &facts.problem {
        return Some(format!("its etcd: {problem}"));
    }
    match &facts.assignment {
        Assignment::Nothing => Some("its assignment in the etcd plan".to_owned()),
        Assignment::Wait { reason, .. } => Some((*reason).to_owned()),
        Assignment::Run { .. } => unit(&facts.status),
    }
}

fn unit(status: &EtcdStatus) -> Option<String> {
    let reason = status.problem.as_ref().or(status.last_words.as_ref());
    let because = |words: &str| match reason {
        Some(reason) => Some(format!("{words}: {reason}")),
        None => Some(words.to_owned()),
    };
    match status.phase {
        Phase::Running => match &status.health {
            Health::Serving | Health::Learner => None,
            Health::Unknown => Some("etcd to answer".to_owned()),
            Health::Waiting(why) | Health::Silent(why) => Some(format!("etcd: {why}")),
        },
        Phase::Stopped | Phase::Starting => because("etcd to start"),
        Phase::BackingOff => because("etcd to restart"),
        Phase::Stopping => Some("etcd to stop".to_owned()),
        Phase::Lost => because("its lost etcd member to be replaced"),
        Phase::Refused => because("etcd, which is not allowed to start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(health: Health) -> EtcdStatus {
        EtcdStatus {
            generation: None,
            version: None,
            data: muster_init::units::etcd::Data::Present,
            phase: Phase::Running,
            health,
            pid: Some(7),
            restarts: 0,
            last_exit: None,
            last_words: None,
            problem: None,
        }
    }

    fn ready() -> Facts {
        let assignment = Assignment::Run {
            generation: 0,
            initial_state: muster_state::etcd::InitialClusterState::New,
            initial_cluster: Vec::new(),
        };
        Facts {
            role: Role::ControlPlane,
            removed: false,
            forming: None,
            has_certificate: true,
            stuck_for: None,
            in_touch: true,
            votes: true,
            founded: true,
            etcd: Some(EtcdFacts { assignment, status: running(Health::Serving), problem: None }),
        }
    }

    #[test]
    fn a_node_with_everything_waits_for_nothing() {
        assert_eq!(waiting_for(&ready()), None);
        let worker = Facts { role: Role::Worker, etcd: None, ..ready() };
        assert_eq!(waiting_for(&worker), None);
    }

    #[test]
    fn the_first_missing_thing_is_named_not_what_follows_from_it() {
        let without_leader = Facts { in_touch: false, votes: false, ..ready() };
        assert!(waiting_for(&without_leader).unwrap().contains("leader"));
        let stuck = Facts { stuck_for: Some(Duration::from_secs(3)), ..without_leader.clone() };
        assert!(waiting_for(&stuck).unwrap().starts_with("its disk"));
        let forming = Facts { forming: Some("2 more".to_owned()), ..stuck };
        assert_eq!(waiting_for(&forming).unwrap(), "2 more");
        let removed = Facts { removed: true, ..forming };
        assert!(waiting_for(&removed).unwrap().contains("was removed from the cluster"));
    }

    #[test]
    fn etcd_s_own_reason_is_passed_on() {
        let mut facts = ready();
        let status = EtcdStatus {
            phase: Phase::BackingOff,
            last_words: Some("disk is full".to_owned()),
            ..running(Health::Unknown)
        };
        if let Some(etcd) = &mut facts.etcd {
            etcd.status = status;
        }
        assert!(waiting_for(&facts).unwrap().ends_with("disk is full"));
    }
}
