//! Shared context of the operator calls: the group, the other nodes, this node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use muster_gossip::LivenessView;
use muster_messages::node::ForwardRequest;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::Endpoint;
use muster_types::wire::{MAX_MESSAGE, NOT_BEGUN_METADATA};
use muster_types::{NodeId, PublicKey};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::api::node_status::NodeStatusProvider;
use crate::api::status::unavailable;
use crate::etcd_clients::{EtcdClientError, EtcdClients};
use crate::raft::Group;
use muster_messages::OperatorMethod;
use muster_state::permissions::AuthorizationError;
use muster_state::{Actor, ClusterState, Command, Outcome, Refusal, RefusalKind};

/// Time limit for a node to answer a call about itself.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);

/// Shared context of the operator calls.
#[derive(Debug)]
pub struct OperatorContext {
    pub(super) group: Group,
    pub(super) node_status: Arc<NodeStatusProvider>,
    pub(super) liveness: watch::Receiver<LivenessView>,
    endpoint: Endpoint,
    etcd: Mutex<EtcdClients>,
}

/// The author of a call, and the node that the call names.
#[derive(Debug)]
pub(super) struct CallContext {
    pub(super) key: PublicKey,
    /// A name or a node id; `None` for this node.
    pub(super) node: Option<String>,
}

/// Rejects a key that is not an operator's, and a role that may not make the call.
pub fn check_role(state: &ClusterState, key: &PublicKey, method: &str) -> Result<(), Status> {
    match OperatorMethod::ALL.iter().copied().find(|call| call.as_str() == method) {
        Some(call) => check_call(state, key, call),
        None => Err(Status::unimplemented("unknown call")),
    }
}

fn check_call(state: &ClusterState, key: &PublicKey, call: OperatorMethod) -> Result<(), Status> {
    state.authorize(key, call).map_err(|error| match &error {
        AuthorizationError::UnknownOperator { .. } => Status::unauthenticated(error.to_string()),
        AuthorizationError::RoleForbids { .. } => Status::permission_denied(error.to_string()),
    })
}

impl OperatorContext {
    pub fn new(
        group: Group,
        endpoint: Endpoint,
        node_status: Arc<NodeStatusProvider>,
        liveness: watch::Receiver<LivenessView>,
    ) -> Self {
        Self { group, endpoint, node_status, liveness, etcd: Mutex::default() }
    }

    /// Rejects a call that the caller's role does not allow.
    pub(super) fn authorize(&self, key: &PublicKey, call: OperatorMethod) -> Result<(), Status> {
        check_call(&self.group.state(), key, call)
    }

    /// Finds the member that a call names; this node if it names none.
    pub(super) fn target(&self, caller: &CallContext) -> Result<NodeId, Status> {
        match caller.node.as_deref() {
            None => Ok(self.group.me()),
            Some(name) => Ok(self.group.state().find(name).map_err(refusal_status)?.id),
        }
    }

    /// Returns the name of a member, or the short id of another node.
    pub(super) fn name(&self, node: &NodeId) -> String {
        self.group.state().name_or_id(node)
    }

    /// Returns a state that is at least as new as the call.
    pub(super) async fn current(&self) -> Result<Arc<ClusterState>, Status> {
        self.group.catch_up().await.map_err(|e| unavailable(&e))
    }

    /// Proposes a command to the group. A refusal becomes an error.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, Status> {
        let outcome = self.group.propose(command).await.map_err(|e| unavailable(&e))?;
        outcome.into_result().map_err(refusal_status)
    }

    /// Calls a node about itself. It may be this node.
    pub(super) async fn call_node<Q: Message, A: Message + Default>(
        &self,
        caller: &PublicKey,
        node: NodeId,
        call: OperatorMethod,
        request: &Q,
    ) -> Result<A, Status> {
        let name = self.name(&node);
        let answered = self.call_node_once(caller, node, call, request.encode_to_vec());
        let answer = match timeout(NODE_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => {
                let why = describe_failure(status.message());
                return Err(Status::new(status.code(), format!("{name}: {why}")));
            }
            Err(_) => {
                return Err(Status::deadline_exceeded(format!(
                    "{name} did not answer within {NODE_TIMEOUT:?}; check that it runs and that \
                     this node can reach it"
                )));
            }
        };
        A::decode(Bytes::from(answer))
            .map_err(|error| Status::internal(format!("invalid reply from {name}: {error}")))
    }

    async fn call_node_once(
        &self,
        caller: &PublicKey,
        node: NodeId,
        call: OperatorMethod,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let empty_reply = || Status::internal("empty reply");
        if node == self.group.me() {
            let mut answers = self.node_status.call(call.as_str(), &request)?;
            return answers.next().await.unwrap_or_else(|| Err(empty_reply()));
        }
        let mut client =
            NodeClient::new(self.endpoint.channel(node)).max_decoding_message_size(MAX_MESSAGE);
        let method = call.as_str().to_owned();
        let forward = ForwardRequest { method, request, operator: caller.to_vec() };
        let answer = client.forward(forward).await?.into_inner().message().await?;
        answer.map(|answer| answer.response).ok_or_else(empty_reply)
    }

    /// Runs `work` with the etcd clients locked. `work` is synchronous, so no await holds the lock.
    pub(super) fn with_etcd<T>(
        &self,
        work: impl FnOnce(&mut EtcdClients) -> Result<T, EtcdClientError>,
    ) -> Result<T, Status> {
        let mut clients = self.etcd.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut clients).map_err(|error| Status::unavailable(muster_types::error::chain(&error)))
    }
}

/// Describes a failed call to a member. A member without a certificate of this cluster is described
/// by the TLS library, in its own terms.
fn describe_failure(message: &str) -> &str {
    if message.contains("invalid peer certificate") {
        "answers, but shows no certificate of this cluster: it was wiped, or has not finished joining"
    } else {
        message
    }
}

/// Marks the error of a call that must not run twice: it has certainly not begun.
pub(super) fn not_begun(mut status: Status) -> Status {
    status.metadata_mut().insert(NOT_BEGUN_METADATA, MetadataValue::from_static("true"));
    status
}

/// Returns the actor of an operator's command.
pub(super) fn operator_actor(caller: PublicKey) -> Actor {
    Actor::Operator(caller)
}

/// Converts a refused command to a gRPC error.
pub(super) fn refusal_status(refusal: Refusal) -> Status {
    let Refusal { kind, message } = refusal;
    match kind {
        RefusalKind::NotAllowed => Status::permission_denied(message),
        RefusalKind::Invalid => Status::invalid_argument(message),
        RefusalKind::NotAMember | RefusalKind::NoSuchToken => Status::not_found(message),
        RefusalKind::NotNow | RefusalKind::NotFounded => Status::unavailable(message),
        RefusalKind::Conflict | RefusalKind::NameTaken => Status::already_exists(message),
        RefusalKind::Full => Status::resource_exhausted(message),
        RefusalKind::AlreadyFounded
        | RefusalKind::Removed
        | RefusalKind::Token
        | RefusalKind::LastControlPlane
        | RefusalKind::QuorumAtRisk
        | RefusalKind::Stale => Status::failed_precondition(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_its_certificate_is_reported_in_plain_words() {
        let tls = "dial 10.0.0.15:50000: the cryptographic handshake failed: error 48: invalid peer \
                   certificate: UnknownIssuer";
        assert!(describe_failure(tls).starts_with("answers, but shows no certificate"));
        assert_eq!(describe_failure("no route to host"), "no route to host");
    }
}
