//! Reconciles Raft's membership with the registry's control-plane nodes, while this node leads. One
//! change is in flight at a time. A failed change is retried indefinitely.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_types::NodeId;
use openraft::{ChangeMembers, EmptyNode};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::raft::voters::{MembershipChange, RaftMembership, next_change};
use crate::raft::{Group, Metrics};
use muster_state::ClusterState;

/// Interval at which the leader checks the membership.
const LEADER_INTERVAL: Duration = Duration::from_millis(200);

/// Interval at which another node checks if it leads.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for one change, after which it is evaluated again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of entries that a learner may lag behind the leader to be promoted.
const MAX_LAG: u64 = 16;

/// Runs until `stop`. Promotes only learners for which `is_alive` is true: a learner that died just
/// after it caught up would count towards the quorum.
pub async fn run(
    group: Group,
    is_alive: impl Fn(&NodeId) -> bool + Send + 'static,
    stop: CancellationToken,
) {
    let membership = |metrics: &Metrics| {
        let mut have = membership(metrics);
        have.caught_up.retain(&is_alive);
        have
    };
    let wants_change = |state: &ClusterState| {
        let have = membership(&group.metrics().borrow());
        state.birth().is_some() && next_change(&state.control_plane_ids(), &have).is_some()
    };
    let pause = || sleep(if group.is_leader() { LEADER_INTERVAL } else { FOLLOWER_INTERVAL });
    while stop.run_until_cancelled(pause()).await.is_some() {
        if !group.is_leader() || !wants_change(&group.state()) {
            continue;
        }
        // Decides again, with the membership lock held and an up-to-date state.
        let Ok((_membership_lock, state)) = group.lock_membership().await else { continue };
        let have = membership(&group.metrics().borrow());
        let Some(change) = next_change(&state.control_plane_ids(), &have) else { continue };
        info!(?change, "changing Raft membership");
        match timeout(CHANGE_TIMEOUT, perform(&group, change)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error, "Raft membership change failed; retrying"),
            Err(_) => warn!("Raft membership change timed out; retrying"),
        }
    }
}

async fn perform(group: &Group, change: MembershipChange) -> Result<(), String> {
    let raft = group.raft();
    let changed = match change {
        MembershipChange::AddLearner(id) => raft.add_learner(id, EmptyNode {}, false).await,
        MembershipChange::Finish(voters) => raft.change_membership(voters, true).await,
        MembershipChange::Promote(id) => {
            let added = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            raft.change_membership(added, true).await
        }
        MembershipChange::Remove(id) => {
            let metrics = group.metrics().borrow().clone();
            let removed = if membership(&metrics).voters.contains(&id) {
                ChangeMembers::RemoveVoters(BTreeSet::from([id]))
            } else {
                ChangeMembers::RemoveNodes(BTreeSet::from([id]))
            };
            raft.change_membership(removed, false).await
        }
    };
    changed.map(drop).map_err(|error| error.to_string())
}

fn membership(metrics: &Metrics) -> RaftMembership {
    let stored = metrics.membership_config.membership();
    let configs = stored.get_joint_config();
    let voters = configs.last().cloned().unwrap_or_default();
    let learners: BTreeSet<_> = stored.learner_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let matched: BTreeMap<_, _> = metrics.replication.clone().unwrap_or_default();
    let close = |id: &&_| {
        matched.get(*id).is_some_and(|log| log.is_some_and(|log| log.index + MAX_LAG >= last))
    };
    let caught_up = learners.iter().filter(close).copied().collect();
    RaftMembership { voters, learners, caught_up, joint: configs.len() > 1 }
}
