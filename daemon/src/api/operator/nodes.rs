//! Operator calls about nodes: version, status, removal, certificates.

use std::time::Duration;

use futures::future::join_all;
use muster_gossip::{Liveness, LivenessState};
use muster_init::units::etcd::client::CallErrorKind;
use muster_messages::{OperatorMethod, operator as wire};
use muster_types::etcd::EtcdMemberId;
use muster_types::{NodeId, PublicKey, VERSION};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::OperatorContext;
use super::context::{CallContext, operator_actor, refusal_status};
use crate::clock;
use muster_state::command::Remove;
use muster_state::{
    ClusterState, Command, RemovalContext, RemovalStep, decide_removal, failure_tolerance,
};

/// Time limit for a removal to wait for etcd, which changes its membership only with a leader. Its
/// members must also have been connected for 5 s (etcd's `HealthInterval`).
const ETCD_REMOVAL_TIMEOUT: Duration = Duration::from_secs(6);
const ETCD_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Time limit for one request to etcd: an operator waits 10 s for the whole removal.
const ETCD_TIMEOUT: Duration = Duration::from_secs(2);

impl OperatorContext {
    #[expect(clippy::unused_async, reason = "every call is dispatched in the same form")]
    pub(super) async fn version(
        &self,
        _: &CallContext,
        _: wire::VersionRequest,
    ) -> Result<wire::VersionReply, Status> {
        let node = self.name(&self.group.me());
        Ok(wire::VersionReply { version: VERSION.to_owned(), node })
    }

    pub(super) async fn status(
        &self,
        caller: &CallContext,
        _: wire::StatusRequest,
    ) -> Result<wire::StatusReply, Status> {
        Ok(wire::StatusReply { nodes: self.status_of_all(&caller.key).await })
    }

    /// Asks all members in parallel. Reports a member that does not answer as unreachable.
    pub(super) async fn status_of_all(&self, caller: &PublicKey) -> Vec<wire::NodeStatusReply> {
        let state = self.group.state();
        let mut asked = Vec::new();
        for member in state.members() {
            asked.push(self.status_or_unreachable(caller, member.id, member.name.to_string()));
        }
        let mut nodes = join_all(asked).await;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    async fn status_or_unreachable(
        &self,
        caller: &PublicKey,
        node: NodeId,
        name: String,
    ) -> wire::NodeStatusReply {
        match self.status_of(caller, node).await {
            Ok(status) => status,
            Err(status) => wire::NodeStatusReply {
                name,
                unreachable: status.message().to_owned(),
                ..Default::default()
            },
        }
    }

    pub(super) async fn node_status(
        &self,
        caller: &CallContext,
        _: wire::NodeStatusRequest,
    ) -> Result<wire::NodeStatusReply, Status> {
        self.status_of(&caller.key, self.target(caller)?).await
    }

    /// Returns the status of one node, with its clock offset to this node.
    async fn status_of(
        &self,
        caller: &PublicKey,
        node: NodeId,
    ) -> Result<wire::NodeStatusReply, Status> {
        let request = wire::NodeStatusRequest {};
        let before = clock::now_millis().as_millis();
        let mut status: wire::NodeStatusReply =
            self.call_node(caller, node, OperatorMethod::NodeStatus, &request).await?;
        let after = clock::now_millis().as_millis();
        // As in NTP: assumes that the reply was made in the middle of the round trip.
        status.clock_offset_ms = status.clock_ms - i64::midpoint(before, after);
        Ok(status)
    }

    pub(super) async fn remove_node(
        &self,
        caller: &CallContext,
        request: wire::RemoveNodeRequest,
    ) -> Result<wire::RemoveNodeReply, Status> {
        let state = self.current().await?;
        let node = state.find_for_removal(&request.node).map_err(refusal_status)?;
        let remove = Remove { node, by: operator_actor(caller.key), force: request.force };
        // The decision comes before the first change.
        let plan = decide_removal(&state, &self.removal_context(), &remove);
        let plan = plan.map_err(refusal_status)?;
        for step in plan.steps {
            match step {
                RemovalStep::RemoveEtcdMember { member_id } => {
                    self.remove_etcd_member(&state, node, member_id, request.force).await?;
                }
                // Raft's leader performs these when it gets the command.
                RemovalStep::HandOverLeadership | RemovalStep::RemoveRaftVoter => {}
                RemovalStep::Commit => {
                    self.propose(Command::Remove(remove.clone())).await?;
                }
            }
        }
        Ok(wire::RemoveNodeReply { name: plan.name.to_string(), id: node.to_string() })
    }

    pub(super) async fn plan_removal(
        &self,
        caller: &CallContext,
        request: wire::PlanRemovalRequest,
    ) -> Result<wire::PlanRemovalReply, Status> {
        let state = self.current().await?;
        let node = state.find_for_removal(&request.node).map_err(refusal_status)?;
        let remove = Remove { node, by: operator_actor(caller.key), force: request.force };
        let context = self.removal_context();
        let plan = decide_removal(&state, &context, &remove).map_err(refusal_status)?;
        let members = muster_state::view::members(&state, &self.seen(None)).members;
        let member = members.into_iter().find(|member| member.id == node.to_string());
        let (role, seen) = member.map_or((0, 0), |member| (member.role, member.state));
        Ok(wire::PlanRemovalReply {
            name: plan.name.to_string(),
            id: node.to_string(),
            role,
            state: seen,
            before: Some(failure_tolerance(&state, &context, None)),
            after: Some(failure_tolerance(&state, &context, Some(&node))),
        })
    }

    pub(super) fn removal_context(&self) -> RemovalContext {
        let me = self.group.me();
        let liveness = self.liveness.borrow();
        let down = liveness.iter().filter(|(id, seen)| **id != me && is_down(seen));
        RemovalContext {
            raft_voters: self.group.voters(),
            leader: self.group.leader(),
            down: down.map(|(id, _)| *id).collect(),
        }
    }

    /// Returns true if gossip reports the node as down. Never true for this node.
    fn is_down(&self, node: &NodeId) -> bool {
        *node != self.group.me() && self.liveness.borrow().get(node).is_some_and(is_down)
    }

    /// Removes the node's member from etcd. Succeeds if the node dies meanwhile: then the etcd plan
    /// removes it later.
    async fn remove_etcd_member(
        &self,
        state: &ClusterState,
        node: NodeId,
        member_id: EtcdMemberId,
        force: bool,
    ) -> Result<(), Status> {
        let client = self.with_etcd(|clients| clients.client(state, clock::now()))?;
        let deadline = Instant::now() + ETCD_REMOVAL_TIMEOUT;
        loop {
            let attempt = timeout(ETCD_TIMEOUT, client.remove(member_id)).await;
            let Ok(outcome) = attempt else {
                if force || self.is_down(&node) {
                    return Ok(());
                }
                if Instant::now() < deadline {
                    continue;
                }
                return Err(Status::unavailable(format!(
                    "cannot remove the etcd member of {}: etcd does not answer; check `musterctl \
                     etcd status`, then try again, or use --force",
                    self.name(&node)
                )));
            };
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) if error.kind == CallErrorKind::MemberNotFound || force => return Ok(()),
                // If the node has died just now, the plan removes its member later.
                Err(_) if self.is_down(&node) => return Ok(()),
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    sleep(ETCD_RETRY_DELAY).await;
                }
                Err(error) => {
                    return Err(Status::failed_precondition(format!(
                        "cannot remove the etcd member of {}: {error}; try again when `musterctl \
                         etcd status` shows all members, or use --force",
                        self.name(&node)
                    )));
                }
            }
        }
    }

    /// Returns the authorities, and the certificates of every node that answers.
    pub(super) async fn show_pki(
        &self,
        caller: &CallContext,
        _: wire::ShowPkiRequest,
    ) -> Result<wire::ShowPkiReply, Status> {
        let state = self.current().await?;
        let nodes = self.status_of_all(&caller.key).await;
        let nodes = nodes.into_iter().map(|node| wire::NodeLeaves {
            node: node.name,
            leaves: node.leaves,
            unreachable: node.unreachable,
        });
        Ok(wire::ShowPkiReply { nodes: nodes.collect(), ..muster_state::view::authorities(&state) })
    }
}

fn is_down(seen: &Liveness) -> bool {
    seen.state == LivenessState::Down
}
