//! Operator service that answers from a script.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use muster_kit::now;
use muster_messages::hello::NodeRole;
use muster_messages::operator::member::{RaftRole, State};
use muster_messages::operator::{
    self as wire, Check, EtcdClientConfigReply, EtcdSnapshotChunk, HealthReply, Member,
    MembersReply, NodeStatusReply, RemoveNodeReply, StatusReply, Token, VersionReply,
};
use muster_pki::leaf::{self, Profile, public_key_of_request};
use muster_services::BoxStream;
use muster_services::operator::operator_server::Operator;
use muster_types::wire::NODE_METADATA;
use tonic::{Request, Response, Status};

use super::Cluster;

pub(super) struct ScriptedOperator(pub(super) Arc<Cluster>);

type Reply<T> = Result<Response<T>, Status>;

impl ScriptedOperator {
    /// Records the call and applies the script, before any reply.
    async fn record_call<T>(&self, call: &str, request: &Request<T>) -> Result<(), Status> {
        let never_answered = {
            let mut received = self.0.received.lock().unwrap();
            received.calls.push(call.to_owned());
            let node = request.metadata().get(NODE_METADATA);
            received.node = node.map(|node| node.to_str().unwrap().to_owned());
            let mut script = self.0.script.lock().unwrap();
            if script.unavailable_calls > 0 {
                script.unavailable_calls -= 1;
                return Err(Status::unavailable("cp-1 hears no majority of the voters"));
            }
            if script.deny && call != "members" {
                return Err(Status::permission_denied("admin has the role reader here"));
            }
            let left = match call {
                "members" => script.members_left.as_mut(),
                "health" => script.health_left.as_mut(),
                _ => None,
            };
            let over_limit = left.is_some_and(|left| {
                *left = left.wrapping_sub(1);
                *left == usize::MAX
            });
            over_limit || script.never_answered.as_deref() == Some(call)
        };
        if never_answered { std::future::pending().await } else { Ok(()) }
    }

    /// Returns an error for a call that was done but must be reported as unavailable.
    fn lose_reply(&self) -> Result<(), Status> {
        if std::mem::take(&mut self.0.script.lock().unwrap().reply_lost) {
            return Err(Status::unavailable("no leader answered within 8 s"));
        }
        Ok(())
    }
}

/// Node id for a name.
pub(crate) fn id_of(name: &str) -> String {
    let letter = match name {
        "cp-1" => "a",
        "cp-2" => "c",
        _ => "b",
    };
    letter.repeat(52)
}

fn member(name: &str, role: NodeRole) -> Member {
    let is_worker = role == NodeRole::Worker;
    let raft_role = if is_worker { RaftRole::Unspecified } else { RaftRole::Leader };
    Member {
        name: name.to_owned(),
        id: id_of(name),
        role: role.into(),
        address: "127.0.0.9:50000".to_owned(),
        state: State::Alive.into(),
        raft_role: raft_role.into(),
        raft_voter: !is_worker,
        version: "0.1.0".to_owned(),
        config_version: 1,
        ..Member::default()
    }
}

#[tonic::async_trait]
impl Operator for ScriptedOperator {
    async fn version(&self, request: Request<wire::VersionRequest>) -> Reply<VersionReply> {
        self.record_call("version", &request).await?;
        let (version, node) = ("0.1.0".to_owned(), "cp-1".to_owned());
        Ok(Response::new(VersionReply { version, node }))
    }

    async fn members(&self, request: Request<wire::MembersRequest>) -> Reply<MembersReply> {
        self.record_call("members", &request).await?;
        Ok(Response::new(MembersReply {
            members: vec![
                member("cp-1", NodeRole::ControlPlane),
                member("worker-1", NodeRole::Worker),
                member("cp-2", NodeRole::ControlPlane),
            ],
            leader: "cp-1".to_owned(),
            cluster_name: "demo".to_owned(),
            cluster_id: self.0.id.to_string(),
            ..MembersReply::default()
        }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Reply<StatusReply> {
        self.record_call("status", &request).await?;
        let node = NodeStatusReply { name: "cp-1".to_owned(), ready: true, ..Default::default() };
        Ok(Response::new(StatusReply { nodes: vec![node] }))
    }

    async fn node_status(
        &self,
        request: Request<wire::NodeStatusRequest>,
    ) -> Reply<NodeStatusReply> {
        self.record_call("node_status", &request).await?;
        Ok(Response::new(NodeStatusReply { name: "cp-2".to_owned(), ..Default::default() }))
    }

    async fn health(&self, request: Request<wire::HealthRequest>) -> Reply<HealthReply> {
        self.record_call("health", &request).await?;
        let passed = !self.0.script.lock().unwrap().unhealthy;
        let looks = self.0.received.lock().unwrap().calls.len();
        let moving = format!("worker-1: no answer for {looks} s");
        let check = |name: &str, passed, detail: &str| Check {
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
            unknown: false,
        };
        let checks = vec![check("raft", true, "3 of 3"), check("etcd", passed, &moving)];
        Ok(Response::new(HealthReply { checks, failure_tolerance: None }))
    }

    async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Reply<RemoveNodeReply> {
        self.record_call("remove_node", &request).await?;
        let id = request.into_inner().node;
        if id == id_of("cp-1") {
            return Err(Status::failed_precondition("cp-1 is needed for a majority; use --force"));
        }
        assert_eq!(id, id_of("worker-1"), "a removal uses the id");
        self.lose_reply()?;
        Ok(Response::new(RemoveNodeReply { name: "worker-1".to_owned(), id }))
    }

    async fn plan_removal(
        &self,
        request: Request<wire::PlanRemovalRequest>,
    ) -> Reply<wire::PlanRemovalReply> {
        self.record_call("plan_removal", &request).await?;
        let node = request.into_inner().node;
        let tolerance = |control_planes, tolerance, warning: &str| {
            let (answering, warning) = (control_planes, warning.to_owned());
            Some(wire::FailureTolerance { control_planes, answering, tolerance, warning })
        };
        let name = match node.as_str() {
            "cp-1" | "worker-1" => node,
            other => return Err(Status::not_found(format!("no member has the name {other}"))),
        };
        let is_worker = name == "worker-1";
        let after = if is_worker { tolerance(3, 1, "") } else { tolerance(2, 0, "if one fails") };
        let role = if is_worker { NodeRole::Worker } else { NodeRole::ControlPlane };
        let is_down = self.0.script.lock().unwrap().down.as_deref() == Some(name.as_str());
        let state = if is_down { State::Down } else { State::Alive };
        Ok(Response::new(wire::PlanRemovalReply {
            id: id_of(&name),
            name,
            role: role.into(),
            state: state.into(),
            before: tolerance(3, 1, ""),
            after,
        }))
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Reply<wire::CreateTokenReply> {
        self.record_call("create_token", &request).await?;
        let asked = request.into_inner();
        self.0.received.lock().unwrap().verifier = asked.verifier;
        let token = Token {
            id: asked.id,
            roles: asked.roles,
            uses_allowed: asked.uses_allowed,
            node_name: asked.node_name,
            description: asked.description,
            expires_ms: i64::try_from(asked.ttl_ms).unwrap(),
            state: wire::token::State::Valid.into(),
            ..Token::default()
        };
        Ok(Response::new(wire::CreateTokenReply { token: Some(token) }))
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Reply<wire::ListTokensReply> {
        self.record_call("list_tokens", &request).await?;
        Ok(Response::new(wire::ListTokensReply::default()))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Reply<wire::RevokeTokenReply> {
        self.record_call("revoke_token", &request).await?;
        let id = request.into_inner().id;
        Err(Status::not_found(format!("there is no token {id}; `musterctl token list` shows all")))
    }

    async fn show_pki(&self, request: Request<wire::ShowPkiRequest>) -> Reply<wire::ShowPkiReply> {
        self.record_call("show_pki", &request).await?;
        Ok(Response::new(wire::ShowPkiReply::default()))
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Reply<wire::ListAuditReply> {
        self.record_call("list_audit", &request).await?;
        Ok(Response::new(wire::ListAuditReply::default()))
    }

    async fn etcd_members(
        &self,
        request: Request<wire::EtcdMembersRequest>,
    ) -> Reply<wire::EtcdMembersReply> {
        self.record_call("etcd_members", &request).await?;
        Ok(Response::new(wire::EtcdMembersReply::default()))
    }

    async fn etcd_status(
        &self,
        request: Request<wire::EtcdStatusRequest>,
    ) -> Reply<wire::EtcdStatusReply> {
        self.record_call("etcd_status", &request).await?;
        let unreachable =
            self.0.script.lock().unwrap().etcd_unreachable.clone().unwrap_or_default();
        let node = "cp-1".to_owned();
        let member = wire::EtcdMemberStatus { node, unreachable, ..Default::default() };
        Ok(Response::new(wire::EtcdStatusReply { members: vec![member] }))
    }

    async fn etcd_snapshot(
        &self,
        request: Request<wire::EtcdSnapshotRequest>,
    ) -> Reply<BoxStream<EtcdSnapshotChunk>> {
        self.record_call("etcd_snapshot", &request).await?;
        let pieces = self.0.script.lock().unwrap().snapshot.clone();
        let pieces = pieces.into_iter().map(|body| Ok(EtcdSnapshotChunk { body }));
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn etcd_alarms(
        &self,
        request: Request<wire::EtcdAlarmsRequest>,
    ) -> Reply<wire::EtcdAlarmsReply> {
        self.record_call("etcd_alarms", &request).await?;
        Ok(Response::new(wire::EtcdAlarmsReply::default()))
    }

    async fn etcd_disarm(
        &self,
        request: Request<wire::EtcdDisarmRequest>,
    ) -> Reply<wire::EtcdAlarmsReply> {
        self.record_call("etcd_disarm", &request).await?;
        let member = request.into_inner().corrupt_member;
        let alarm = |node: &str, alarm: &str, disarmed| wire::EtcdAlarm {
            node: node.to_owned(),
            member_id: "be".to_owned(),
            alarm: alarm.to_owned(),
            disarmed,
        };
        let alarms = vec![
            alarm("cp-1", "NOSPACE", member.is_empty()),
            alarm("cp-2", "CORRUPT", member == "cp-2"),
        ];
        Ok(Response::new(wire::EtcdAlarmsReply { alarms }))
    }

    async fn etcd_defrag(
        &self,
        request: Request<wire::EtcdDefragRequest>,
    ) -> Reply<wire::EtcdDefragReply> {
        self.record_call("etcd_defrag", &request).await?;
        self.lose_reply()?;
        Ok(Response::new(wire::EtcdDefragReply { size_before: 2048, size_after: 1024 }))
    }

    async fn etcd_forfeit_leadership(
        &self,
        request: Request<wire::EtcdForfeitLeadershipRequest>,
    ) -> Reply<wire::EtcdForfeitLeadershipReply> {
        self.record_call("etcd_forfeit_leadership", &request).await?;
        let leader = "cp-2".to_owned();
        Ok(Response::new(wire::EtcdForfeitLeadershipReply { leader, moved: true }))
    }

    async fn etcd_client_config(
        &self,
        request: Request<wire::EtcdClientConfigRequest>,
    ) -> Reply<EtcdClientConfigReply> {
        self.record_call("etcd_client_config", &request).await?;
        let asked = request.into_inner();
        let key = public_key_of_request(&asked.certificate_request).unwrap();
        let lifetime = Duration::from_millis(asked.ttl_ms);
        let profile = Profile::EtcdClient { common_name: "admin".to_owned(), lifetime };
        let leaf = leaf::issue(&self.0.etcd, &profile, &key, now()).unwrap();
        let expires = leaf.not_after.duration_since(UNIX_EPOCH).unwrap().as_millis();
        Ok(Response::new(EtcdClientConfigReply {
            certificate_pem: leaf.to_pem(),
            authority_pem: self.0.etcd.certificate_pem(),
            endpoints: vec!["https://127.0.0.9:2379".to_owned()],
            expires_ms: i64::try_from(expires).unwrap(),
        }))
    }
}
