//! The calls about nodes: version, status, removal, certificates.

use std::time::Duration;

use futures::future::join_all;
use muster_gossip::State;
use muster_init::units::etcd::client::{Kind, MemberId};
use muster_messages::operator as wire;
use muster_types::{NodeId, PublicKey, VERSION};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::Desk;
use super::desk::{by, refused};
use super::etcd::millis;
use crate::clock;
use muster_state::access::Call;
use muster_state::command::Remove;
use muster_state::{ClusterState, Command, Outcome};

/// How long a removal waits for etcd to have a leader and to have been healthy long enough: it changes
/// its membership only when its members have been connected for 5 s (etcd's `HealthInterval`).
const ETCD_SETTLES: Duration = Duration::from_secs(6);
const ETCD_AGAIN: Duration = Duration::from_millis(500);

/// How long one attempt at etcd may take: an operator waits 10 s for the whole of a removal.
const ETCD_ANSWERS: Duration = Duration::from_secs(2);

impl Desk {
    pub(super) fn version(&self) -> wire::VersionReply {
        wire::VersionReply { version: VERSION.to_owned(), node: self.name(&self.group.me()) }
    }

    /// Every member asked at the same time; who does not answer is said to be unreachable.
    pub(super) async fn status(&self, caller: &PublicKey) -> wire::StatusReply {
        let state = self.group.state();
        let mut asked = Vec::new();
        for member in state.members() {
            asked.push(self.status_or_silence(caller, member.id, member.name.to_string()));
        }
        let mut nodes = join_all(asked).await;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        wire::StatusReply { nodes }
    }

    async fn status_or_silence(
        &self,
        caller: &PublicKey,
        node: NodeId,
        name: String,
    ) -> wire::NodeStatusReply {
        match self.node_status(caller, node).await {
            Ok(status) => status,
            Err(status) => wire::NodeStatusReply {
                name,
                unreachable: status.message().to_owned(),
                ..Default::default()
            },
        }
    }

    /// One node about itself, with its clock compared to this node's.
    pub(super) async fn node_status(
        &self,
        caller: &PublicKey,
        node: NodeId,
    ) -> Result<wire::NodeStatusReply, Status> {
        let request = wire::NodeStatusRequest {};
        let before = millis(clock::now());
        let mut status: wire::NodeStatusReply =
            self.ask(caller, node, Call::NodeStatus, &request).await?;
        let after = millis(clock::now());
        // As NTP does: the answer was made in the middle of the round trip.
        status.clock_offset_ms = status.clock_ms - i64::midpoint(before, after);
        Ok(status)
    }

    pub(super) async fn remove_node(
        &self,
        caller: PublicKey,
        request: wire::RemoveNodeRequest,
    ) -> Result<wire::RemoveNodeReply, Status> {
        let state = self.current().await?;
        let node = state.find_to_remove(&request.node).map_err(refused)?;
        let remove = Remove { node, by: by(caller), force: request.force };
        // Whatever refuses it does so before anything is changed.
        state.check_removal(&remove).map_err(refused)?;
        self.majority_without(&node)?;
        if !self.is_down(&node) {
            self.leave_etcd(&state, node, request.force).await?;
        }
        match self.propose(Command::Remove(remove)).await? {
            Outcome::Removed { node, name } => {
                Ok(wire::RemoveNodeReply { name: name.to_string(), id: node.to_string() })
            }
            other => Err(Status::internal(format!("the removal had the outcome {other:?}"))),
        }
    }

    /// Refuses a removal after which Raft could not go on: the change itself needs the majority that
    /// remains. No force helps against that.
    fn majority_without(&self, node: &NodeId) -> Result<(), Status> {
        let mut voters = self.group.voters();
        if !voters.remove(node) {
            return Ok(());
        }
        if voters.is_empty() {
            return Err(Status::failed_precondition(format!(
                "{} is the only voter of Raft; wait until `musterctl members` shows another one, \
                 then try again",
                self.name(node)
            )));
        }
        let up: Vec<_> = voters.iter().filter(|voter| !self.is_down(voter)).collect();
        if up.len() > voters.len() / 2 {
            return Ok(());
        }
        let down = voters.iter().filter(|voter| self.is_down(voter)).map(|voter| self.name(voter));
        Err(Status::failed_precondition(format!(
            "without {} Raft would have {} voters of which {} answer, too few to go on; start {} \
             again, or remove it first",
            self.name(node),
            voters.len(),
            up.len(),
            down.collect::<Vec<_>>().join(", ")
        )))
    }

    /// Whether gossip holds the node for down; this node itself never is.
    fn is_down(&self, node: &NodeId) -> bool {
        *node != self.group.me()
            && self.liveness.borrow().get(node).is_some_and(|seen| seen.state == State::Down)
    }

    /// Has etcd let the node's member go while it still answers: with two members left, its vote is
    /// needed for that.
    async fn leave_etcd(
        &self,
        state: &ClusterState,
        node: NodeId,
        force: bool,
    ) -> Result<(), Status> {
        let record = state.etcd().record(&node);
        let Some(member) = record.and_then(|record| record.phase.member_id()) else {
            return Ok(());
        };
        let client = self.with_etcd(|access| access.client(state, clock::now()))?;
        let patience = Instant::now() + ETCD_SETTLES;
        loop {
            let attempt = timeout(ETCD_ANSWERS, client.remove(MemberId(member))).await;
            let Ok(outcome) = attempt else {
                if force || self.is_down(&node) {
                    return Ok(());
                }
                if Instant::now() < patience {
                    continue;
                }
                return Err(Status::unavailable(format!(
                    "etcd does not answer, so its member on {} cannot leave; see `musterctl etcd \
                     status`, then try again, or use --force",
                    self.name(&node)
                )));
            };
            match outcome {
                Ok(_) => return Ok(()),
                Err(error) if error.kind == Kind::MemberNotFound || force => return Ok(()),
                // The node may have died just now: then the plan lets its member go later.
                Err(_) if self.is_down(&node) => return Ok(()),
                Err(error) if error.is_transient() && Instant::now() < patience => {
                    sleep(ETCD_AGAIN).await;
                }
                Err(error) => {
                    return Err(Status::failed_precondition(format!(
                        "etcd does not let {} go: {error}; try again when `musterctl etcd status` \
                         shows all members, or use --force",
                        self.name(&node)
                    )));
                }
            }
        }
    }

    /// The authorities, and the leaves of every node that answers.
    pub(super) async fn show_pki(&self, caller: &PublicKey) -> Result<wire::ShowPkiReply, Status> {
        let state = self.current().await?;
        let nodes = self.status(caller).await.nodes.into_iter().map(|node| wire::NodeLeaves {
            node: node.name,
            leaves: node.leaves,
            unreachable: node.unreachable,
        });
        Ok(wire::ShowPkiReply { nodes: nodes.collect(), ..muster_state::view::authorities(&state) })
    }
}
