//! Reconciles Raft's membership with the registry's control-plane nodes, while this node leads. One
//! change is in flight at a time. A failed change is retried indefinitely.

use std::time::Duration;

use muster_types::NodeId;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::raft::Group;
use crate::raft::voters::next_change;
use muster_state::ClusterState;

/// Interval at which the leader checks the membership.
const LEADER_INTERVAL: Duration = Duration::from_millis(200);

/// Interval at which another node checks if it leads.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for one change, after which it is evaluated again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until `stop`. Promotes only learners for which `is_alive` is true: a learner that died just
/// after it caught up would count towards the quorum.
pub async fn run(
    group: Group,
    is_alive: impl Fn(&NodeId) -> bool + Send + 'static,
    stop: CancellationToken,
) {
    let next = |state: &ClusterState| {
        let mut have = group.raft_membership();
        have.caught_up.retain(&is_alive);
        state.birth().and_then(|_| next_change(&state.control_plane_ids(), &have))
    };
    let pause = || sleep(if group.is_leader() { LEADER_INTERVAL } else { FOLLOWER_INTERVAL });
    while stop.run_until_cancelled(pause()).await.is_some() {
        if !group.is_leader() || next(&group.state()).is_none() {
            continue;
        }
        // Decides again, with the membership lock held and an up-to-date state.
        let Ok((membership_lock, state)) = group.lock_membership().await else { continue };
        let Some(change) = next(&state) else { continue };
        info!(?change, "changing Raft membership");
        match timeout(CHANGE_TIMEOUT, membership_lock.perform(change)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "Raft membership change failed; retrying"),
            Err(_) => warn!("Raft membership change timed out; retrying"),
        }
    }
}
