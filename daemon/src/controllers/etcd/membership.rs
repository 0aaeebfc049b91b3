//! Reconciles etcd's membership with the plan, on the leader, one step at a time. [`next_step`]
//! decides. This module observes etcd, performs the step and records it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use muster_gossip::{Liveness, LivenessState, LivenessView};
use muster_init::units::etcd::client::{CallError, CallErrorKind, EtcdClient};
use muster_types::NodeId;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock;
use crate::etcd_clients::EtcdClients;
use crate::raft::Group;
use muster_state::etcd::{EtcdMemberPhase, EtcdObservation, ObservedMember, Step, next_step};
use muster_state::{ClusterState, Command, EtcdChange};
use muster_types::error::chain;

/// Polling interval while etcd differs from the plan.
const CONVERGING_INTERVAL: Duration = Duration::from_millis(250);

/// Polling interval while etcd matches the plan.
const CONVERGED_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which another node checks if it leads.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(1);

/// Time that gossip must have reported a node as down before its etcd counts as lost.
const LOST_TIMEOUT: Duration = Duration::from_secs(30);

/// Receiver of every member's liveness from gossip.
pub type LivenessWatch = watch::Receiver<LivenessView>;

/// Runs until `stop`; acts only while this node leads.
pub async fn run(group: Group, liveness: LivenessWatch, stop: CancellationToken) {
    let mut clients = EtcdClients::default();
    let mut states = group.watch_state();
    while stop.run_until_cancelled(sleep(CONVERGING_INTERVAL)).await.is_some() {
        let is_idle = |state: &ClusterState| is_converged(state) || !group.is_leader();
        let interval =
            if is_converged(&group.state()) { CONVERGED_INTERVAL } else { FOLLOWER_INTERVAL };
        let wait = timeout(interval, states.wait_for(|state| !is_idle(state)));
        if stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
        let state = group.state();
        if !group.is_leader() || state.authorities().is_none() {
            continue;
        }
        let attempt = Box::pin(reconcile(&group, &mut clients, &liveness));
        if let Some(Err(error)) = stop.run_until_cancelled(attempt).await {
            debug!(error, "cannot read etcd's membership");
        }
    }
}

/// Returns true if every control-plane node votes in etcd, at its planned peer URL.
fn is_converged(state: &ClusterState) -> bool {
    let plan = state.etcd();
    plan.leftover_members().len() == 0
        && plan.nodes().all(|(node, record)| {
            matches!(record.phase, EtcdMemberPhase::Voter { .. })
                && state.etcd_peer_url(node).as_ref() == Some(&record.peer.url)
        })
}

async fn reconcile(
    group: &Group,
    clients: &mut EtcdClients,
    liveness: &LivenessWatch,
) -> Result<(), String> {
    let state = group.catch_up().await.map_err(|error| chain(&error))?;
    let client = clients.client(&state, clock::now()).map_err(|error| chain(&error))?;
    let down = down_for_long(&liveness.borrow());
    let observed = observe(&client, down).await.map_err(|error| chain(&error))?;
    let Some(step) = next_step(&state, &observed) else { return Ok(()) };
    // The observation is valid only if the plan was the same before and after it. Another leader
    // may have performed and recorded steps while this one was not running.
    let since = group.catch_up().await.map_err(|error| chain(&error))?;
    if since.etcd() != state.etcd() {
        return Ok(());
    }
    info!(?step, "changing etcd's membership");
    let change = match perform(&client, step).await {
        Ok(change) => change,
        Err(error) if error.is_transient() || error.kind == CallErrorKind::LearnerNotReady => {
            debug!(%error, "etcd is not ready for the change");
            return Ok(());
        }
        Err(error) => {
            warn!(%error, "etcd rejected the change; retrying");
            return Ok(());
        }
    };
    if let Some(change) = change {
        let outcome = group.propose(Command::Etcd(change)).await.map_err(|e| chain(&e))?;
        debug!(?outcome, "recorded the change of etcd's membership");
    }
    Ok(())
}

fn down_for_long(liveness: &BTreeMap<NodeId, Liveness>) -> BTreeSet<NodeId> {
    let now = Instant::now();
    let silent = |seen: &Liveness| {
        seen.state == LivenessState::Down
            && seen.last_heard.is_none_or(|heard| now.duration_since(heard) > LOST_TIMEOUT)
    };
    liveness.iter().filter(|(_, seen)| silent(seen)).map(|(node, _)| *node).collect()
}

/// Reads etcd's member list from an up-to-date member, and probes which members answer.
async fn observe(
    client: &EtcdClient,
    down: BTreeSet<NodeId>,
) -> Result<EtcdObservation, CallError> {
    let listed = client.current_members().await?;
    let healths = client.member_clients().iter().map(async |member| {
        let answered = member.health().await.is_ok();
        answered.then(|| muster_types::etcd::url(member.endpoint()))
    });
    let answered: BTreeSet<String> = join_all(healths).await.into_iter().flatten().collect();
    let members = listed
        .into_iter()
        .map(|member| ObservedMember {
            member_id: member.id,
            healthy: member.client_urls.iter().any(|url| answered.contains(url)),
            name: member.name,
            peer_urls: member.peer_urls,
            learner: member.learner,
        })
        .collect();
    Ok(EtcdObservation { members, down })
}

/// Performs a step and returns the change to record. A step that etcd has already done succeeds.
async fn perform(client: &EtcdClient, step: Step) -> Result<Option<EtcdChange>, CallError> {
    Ok(match step {
        Step::Record(change) => Some(change),
        Step::Update { node, generation, member_id, peer_url } => {
            client.update(member_id, &peer_url).await?;
            Some(EtcdChange::PeerUrlChanged { node, generation, peer_url })
        }
        Step::Remove { member_id, of } => {
            match client.remove(member_id).await {
                Ok(_) => {}
                Err(error) if error.kind == CallErrorKind::MemberNotFound => {}
                Err(error) => return Err(error),
            }
            of.map(|(node, generation)| EtcdChange::Removed { node, generation })
        }
        Step::Promote { node, generation, member_id } => {
            match client.promote(member_id).await {
                Ok(_) => {}
                Err(error) if error.kind == CallErrorKind::NotLearner => {}
                Err(error) => return Err(error),
            }
            Some(EtcdChange::Promoted { node, generation, member_id })
        }
        Step::Add { node, generation, peer } => {
            let (added, _) = client.add_learner(&peer.url).await?;
            let (member_id, peer_url) = (added.id, peer.url);
            Some(EtcdChange::Added { node, generation, member_id, peer_url })
        }
    })
}
