//! Readiness: the one thing that a node waits for, if it is not ready. Pure: reads no clock and no
//! channel.

use std::time::Duration;

use muster_init::units::{UnitHealth, UnitName, UnitPhase, UnitStatus};
use muster_types::Role;

use super::{NodeStatus, PublishedUnit, Stage};
use crate::raft::Group;

/// State of this node's Raft, as far as readiness depends on it.
#[derive(Debug, Clone)]
pub struct RaftReadiness {
    /// Time since Raft got stuck on its disk. `None` if it is not stuck.
    pub stuck_for: Option<Duration>,
    pub has_live_leader: bool,
    /// True if the state is founded and has its authorities.
    pub founded: bool,
    /// True if this node votes.
    pub votes: bool,
}

impl RaftReadiness {
    pub fn of(group: &Group) -> Self {
        let state = group.state();
        Self {
            stuck_for: group.stuck_for(),
            has_live_leader: group.has_live_leader(),
            founded: state.birth().is_some() && state.authorities().is_some(),
            votes: group.is_voter(),
        }
    }
}

/// Inputs of the readiness check.
#[derive(Debug, Clone)]
pub struct ReadinessInputs {
    /// Role of this node.
    pub role: Role,
    pub node: NodeStatus,
    /// True if this node has a node certificate.
    pub has_certificate: bool,
    /// `None` on a worker, and before Raft has started.
    pub raft: Option<RaftReadiness>,
}

/// Returns the one thing that this node waits for; `None` if it is ready. Reads well after "waits
/// for …". Names the first missing thing, not what follows from it.
pub fn waiting_for(inputs: &ReadinessInputs) -> Option<String> {
    let ReadinessInputs { role, node, has_certificate, raft } = inputs;
    if node.stage == Stage::Removed {
        return Some(
            "nothing: it was removed from the cluster; to let this machine join as a new node, \
             stop musterd, move its state directory away and start it again"
                .to_owned(),
        );
    }
    if let Some(problem) = &node.port_problem {
        return Some(problem.clone());
    }
    if let Stage::Forming { waiting_for: Some(condition) } = &node.stage {
        return Some(condition.clone());
    }
    if let Some(since) = raft.as_ref().and_then(|raft| raft.stuck_for) {
        return Some(format!(
            "its disk: Raft has been stuck for {} s, because the disk hangs or the machine is \
             overloaded",
            since.as_secs()
        ));
    }
    let connected = match role {
        Role::ControlPlane => raft.as_ref().is_some_and(|raft| raft.has_live_leader),
        Role::Worker => node.connected,
    };
    let (founded, votes) = raft.as_ref().map_or((true, true), |raft| (raft.founded, raft.votes));
    let checks = [
        (connected, connected_words(*role)),
        (founded, "the first leader to commit the founding and the authorities"),
        (*has_certificate, "its node certificate"),
        (votes, "a vote in Raft, after it has caught up with the log"),
    ];
    if let Some((_, words)) = checks.iter().find(|(holds, _)| !holds) {
        return Some((*words).to_owned());
    }
    node.units.iter().find_map(|(name, unit)| unit_reason(*name, unit))
}

fn connected_words(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => {
            "a leader: a majority of the control-plane nodes must be up and reach each other"
        }
        Role::Worker => "a reply from a control-plane node",
    }
}

fn unit_reason(name: UnitName, unit: &PublishedUnit) -> Option<String> {
    if let Some(blocked) = &unit.blocked {
        return Some(blocked.clone());
    }
    let UnitStatus { phase, health, last_error, problem, .. } = &unit.status;
    let because = |words: String| match problem.as_ref().or(last_error.as_ref()) {
        Some(reason) => Some(format!("{words}: {reason}")),
        None => Some(words),
    };
    match phase {
        UnitPhase::Running => match health {
            UnitHealth::Healthy => None,
            UnitHealth::Unknown => Some(format!("{name} to answer")),
            UnitHealth::Waiting(why) | UnitHealth::Silent(why) => Some(format!("{name}: {why}")),
        },
        UnitPhase::Stopped | UnitPhase::Starting => because(format!("{name} to start")),
        UnitPhase::BackingOff => because(format!("{name} to restart")),
        UnitPhase::Stopping => Some(format!("{name} to stop")),
        UnitPhase::Lost => because(format!("its lost {name} to be replaced")),
        UnitPhase::Refused => because(format!("{name}, which is not allowed to start")),
    }
}
