//! The operator API. Every call first looks up the caller's key and role. A call about one node is
//! answered here or forwarded to that node.

mod audit;
mod context;
mod etcd;
#[cfg(test)]
mod fuzz;
mod health;
mod members;
mod nodes;
mod server;
mod tokens;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use muster_messages::operator as wire;
use muster_services::operator::operator_server::Operator;
use muster_types::PublicKey;
use muster_types::wire::NODE_METADATA;
use tonic::{Request, Response, Status};

pub use context::{OperatorContext, check_role};
pub use server::serve;

use super::listen::OperatorPeer;
use muster_state::permissions::Call;

/// The service on one control-plane node.
#[derive(Debug, Clone)]
pub struct OperatorService {
    context: Arc<OperatorContext>,
}

impl OperatorService {
    pub fn new(context: Arc<OperatorContext>) -> Self {
        Self { context }
    }

    /// Returns the caller's key if its role allows the call.
    fn authorize<T>(&self, request: &Request<T>, call: Call) -> Result<PublicKey, Status> {
        let peer = request
            .extensions()
            .get::<OperatorPeer>()
            .ok_or_else(|| Status::internal("the request did not come over the operator port"))?;
        self.context.authorize(&peer.key, call)?;
        Ok(peer.key)
    }
}

/// Returns the node that a call names in its metadata.
fn target<T>(request: &Request<T>) -> Result<Option<String>, Status> {
    let Some(value) = request.metadata().get(NODE_METADATA) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Status::invalid_argument("muster-node is not text"))?;
    Ok(Some(text.to_owned()))
}

/// Checks the caller, passes the message to the operator context, wraps the reply.
macro_rules! answer {
    ($self:ident, $request:ident, $call:ident, |$context:ident, $caller:ident, $message:ident| $body:expr) => {{
        let $caller = $self.authorize(&$request, Call::$call)?;
        let $context = &$self.context;
        let $message = $request.into_inner();
        $body.map(Response::new)
    }};
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn version(
        &self,
        request: Request<wire::VersionRequest>,
    ) -> Result<Response<wire::VersionReply>, Status> {
        answer!(self, request, Version, |context, _caller, _message| Ok(context.version()))
    }

    async fn members(
        &self,
        request: Request<wire::MembersRequest>,
    ) -> Result<Response<wire::MembersReply>, Status> {
        answer!(self, request, Members, |context, _caller, _message| Ok(context.members().await))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusReply>, Status> {
        answer!(self, request, Status, |context, caller, _message| Ok(context
            .status(&caller)
            .await))
    }

    async fn node_status(
        &self,
        request: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatusReply>, Status> {
        let caller = self.authorize(&request, Call::NodeStatus)?;
        let node = self.context.node(target(&request)?.as_deref())?;
        self.context.node_status(&caller, node).await.map(Response::new)
    }

    async fn health(
        &self,
        request: Request<wire::HealthRequest>,
    ) -> Result<Response<wire::HealthReply>, Status> {
        answer!(self, request, Health, |context, caller, _message| Ok(context
            .health(&caller)
            .await))
    }

    async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::RemoveNodeReply>, Status> {
        answer!(self, request, RemoveNode, |context, caller, message| context
            .remove_node(caller, message)
            .await)
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenReply>, Status> {
        answer!(self, request, CreateToken, |context, caller, message| context
            .create_token(caller, message)
            .await)
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensReply>, Status> {
        answer!(self, request, ListTokens, |context, _caller, _message| context.list_tokens().await)
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<wire::RevokeTokenReply>, Status> {
        answer!(self, request, RevokeToken, |context, caller, message| context
            .revoke_token(caller, message)
            .await)
    }

    async fn show_pki(
        &self,
        request: Request<wire::ShowPkiRequest>,
    ) -> Result<Response<wire::ShowPkiReply>, Status> {
        answer!(self, request, ShowPki, |context, caller, _message| context.show_pki(&caller).await)
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditReply>, Status> {
        answer!(self, request, ListAudit, |context, _caller, message| context
            .list_audit(message)
            .await)
    }

    async fn etcd_members(
        &self,
        request: Request<wire::EtcdMembersRequest>,
    ) -> Result<Response<wire::EtcdMembersReply>, Status> {
        answer!(self, request, EtcdMembers, |context, _caller, _message| context
            .etcd_members()
            .await)
    }

    async fn etcd_status(
        &self,
        request: Request<wire::EtcdStatusRequest>,
    ) -> Result<Response<wire::EtcdStatusReply>, Status> {
        answer!(self, request, EtcdStatus, |context, _caller, _message| context.etcd_status().await)
    }

    type EtcdSnapshotStream =
        Pin<Box<dyn Stream<Item = Result<wire::EtcdSnapshotChunk, Status>> + Send>>;

    async fn etcd_snapshot(
        &self,
        request: Request<wire::EtcdSnapshotRequest>,
    ) -> Result<Response<Self::EtcdSnapshotStream>, Status> {
        let caller = self.authorize(&request, Call::EtcdSnapshot)?;
        let node = self.context.node(target(&request)?.as_deref())?;
        self.context.etcd_snapshot(caller, node).await.map(Response::new)
    }

    async fn etcd_alarms(
        &self,
        request: Request<wire::EtcdAlarmsRequest>,
    ) -> Result<Response<wire::EtcdAlarmsReply>, Status> {
        if request.get_ref().disarm {
            self.authorize(&request, Call::EtcdDisarm)?;
        }
        answer!(self, request, EtcdAlarms, |context, caller, message| context
            .etcd_alarms(caller, message)
            .await)
    }

    async fn etcd_defrag(
        &self,
        request: Request<wire::EtcdDefragRequest>,
    ) -> Result<Response<wire::EtcdDefragReply>, Status> {
        let caller = self.authorize(&request, Call::EtcdDefrag)?;
        let node = self.context.node(target(&request)?.as_deref())?;
        self.context.etcd_defrag(caller, node).await.map(Response::new)
    }

    async fn etcd_forfeit_leadership(
        &self,
        request: Request<wire::EtcdForfeitLeadershipRequest>,
    ) -> Result<Response<wire::EtcdForfeitLeadershipReply>, Status> {
        let caller = self.authorize(&request, Call::EtcdForfeitLeadership)?;
        let node = self.context.node(target(&request)?.as_deref())?;
        self.context.etcd_forfeit_leadership(caller, node).await.map(Response::new)
    }

    async fn etcd_client_config(
        &self,
        request: Request<wire::EtcdClientConfigRequest>,
    ) -> Result<Response<wire::EtcdClientConfigReply>, Status> {
        answer!(self, request, EtcdClientConfig, |context, caller, message| context
            .etcd_client_config(caller, message)
            .await)
    }
}
