//! Operator calls about etcd.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use muster_init::units::etcd::client::{CallError, EtcdClient, EtcdMember, MemberClient, snapshot};
use muster_messages::operator as wire;
use muster_pki::leaf::{self, Profile};
use muster_services::BoxStream;
use muster_types::etcd::{EtcdMemberId, url};
use muster_types::{NodeId, Role, UnixMillis};
use tonic::Status;

use super::context::{CallContext, not_begun};
use super::{OperatorContext, alarms};
use crate::clock;
use crate::etcd_clients;
use muster_state::ClusterState;
use muster_types::error::chain;

/// Maximum lifetime of a client certificate that an operator may request.
const MAX_TTL: Duration = Duration::from_hours(24 * 30);

/// Lifetime of a client certificate if the operator requests none.
const DEFAULT_TTL: Duration = Duration::from_hours(1);

impl OperatorContext {
    fn etcd(&self, state: &ClusterState) -> Result<EtcdClient, Status> {
        self.with_etcd(|clients| clients.client(state, clock::now()))
    }

    /// Returns a client for the etcd of one node.
    fn etcd_of(&self, state: &ClusterState, node: &NodeId) -> Result<MemberClient, Status> {
        refuse_without_etcd(state, node)?;
        self.with_etcd(|clients| clients.member(state, node, clock::now()))
    }

    pub(super) async fn etcd_members(
        &self,
        _: &CallContext,
        _: wire::EtcdMembersRequest,
    ) -> Result<wire::EtcdMembersReply, Status> {
        let state = self.group.state();
        let listed = self.etcd(&state)?.members().await.map_err(|e| call_status(&e))?;
        Ok(wire::EtcdMembersReply { members: listed.into_iter().map(member).collect() })
    }

    pub(super) async fn etcd_status(
        &self,
        _: &CallContext,
        _: wire::EtcdStatusRequest,
    ) -> Result<wire::EtcdStatusReply, Status> {
        self.status_of_etcd().await
    }

    pub(super) async fn status_of_etcd(&self) -> Result<wire::EtcdStatusReply, Status> {
        let state = self.group.state();
        let mut asked = Vec::new();
        for (node, _) in etcd_clients::members(&state) {
            asked.push(self.status_or_error(&state, node));
        }
        Ok(wire::EtcdStatusReply { members: join_all(asked).await })
    }

    async fn status_or_error(&self, state: &ClusterState, node: NodeId) -> wire::EtcdMemberStatus {
        let name = self.name(&node);
        match self.one_status(state, &node).await {
            Ok(status) => wire::EtcdMemberStatus { node: name, ..status },
            Err(status) => wire::EtcdMemberStatus {
                node: name,
                unreachable: status.message().to_owned(),
                ..Default::default()
            },
        }
    }

    async fn one_status(
        &self,
        state: &ClusterState,
        node: &NodeId,
    ) -> Result<wire::EtcdMemberStatus, Status> {
        let member = self.with_etcd(|clients| clients.member(state, node, clock::now()))?;
        let status = member.status().await.map_err(|e| call_status(&e))?;
        Ok(wire::EtcdMemberStatus {
            id: status.id.to_string(),
            version: status.version,
            db_size: status.db_size,
            db_size_in_use: status.db_size_in_use,
            leader: status.leader == Some(status.id),
            learner: status.learner,
            raft_term: status.raft_term,
            raft_index: status.raft_index,
            raft_applied_index: status.raft_applied_index,
            errors: alarms::readable(status.errors, state),
            ..Default::default()
        })
    }

    pub(super) async fn etcd_snapshot(
        &self,
        caller: &CallContext,
        _: wire::EtcdSnapshotRequest,
    ) -> Result<BoxStream<wire::EtcdSnapshotChunk>, Status> {
        let node = self.target(caller)?;
        let state = self.group.state();
        let member = self.etcd_of(&state, &node)?;
        let pieces = snapshot::stream(&member).await.map_err(|e| call_status(&e))?;
        self.record_audit(caller, "etcd snapshot", &self.name(&node)).await?;
        Ok(Box::pin(pieces.map(|piece| match piece {
            Ok(body) => Ok(wire::EtcdSnapshotChunk { body }),
            Err(error) => Err(call_status(&error)),
        })))
    }

    pub(super) async fn etcd_alarms(
        &self,
        _: &CallContext,
        _: wire::EtcdAlarmsRequest,
    ) -> Result<wire::EtcdAlarmsReply, Status> {
        self.alarms().await
    }

    /// Disarms the NOSPACE alarms, or the CORRUPT alarm of the member that the request names.
    pub(super) async fn etcd_disarm(
        &self,
        caller: &CallContext,
        request: wire::EtcdDisarmRequest,
    ) -> Result<wire::EtcdAlarmsReply, Status> {
        let client = self.etcd(&self.group.state())?;
        let alarms = client.alarms().await.map_err(|e| call_status(&e))?;
        let names = names(&client.members().await.map_err(|e| call_status(&e))?);
        let selected = alarms::select(&alarms, &names, &request.corrupt_member)?;
        for alarm in &selected {
            let subject =
                format!("{} of {}", alarm.kind, alarms::member_name(&names, alarm.member));
            self.record_audit(caller, "disarm etcd alarm", &subject).await?;
            client.disarm(*alarm).await.map_err(|e| call_status(&e))?;
        }
        Ok(alarms::reply(&names, &alarms, &selected))
    }

    /// Returns the active alarms of all members.
    pub(super) async fn alarms(&self) -> Result<wire::EtcdAlarmsReply, Status> {
        let client = self.etcd(&self.group.state())?;
        let alarms = client.alarms().await.map_err(|e| call_status(&e))?;
        let names = names(&client.members().await.map_err(|e| call_status(&e))?);
        Ok(alarms::reply(&names, &alarms, &[]))
    }

    pub(super) async fn etcd_defrag(
        &self,
        caller: &CallContext,
        _: wire::EtcdDefragRequest,
    ) -> Result<wire::EtcdDefragReply, Status> {
        let (node, member, before) = self.defrag_target(caller).await.map_err(not_begun)?;
        self.record_audit(caller, "defragment etcd", &self.name(&node)).await?;
        member.defragment().await.map_err(|e| call_status(&e))?;
        let after = member.status().await.map_err(|e| call_status(&e))?.db_size;
        Ok(wire::EtcdDefragReply { size_before: before, size_after: after })
    }

    /// Returns the node to defragment, a client for its etcd, and the size of its database.
    async fn defrag_target(
        &self,
        caller: &CallContext,
    ) -> Result<(NodeId, MemberClient, u64), Status> {
        let node = self.target(caller)?;
        let member = self.etcd_of(&self.group.state(), &node)?;
        let before = member.status().await.map_err(|e| call_status(&e))?.db_size;
        Ok((node, member, before))
    }

    pub(super) async fn etcd_forfeit_leadership(
        &self,
        caller: &CallContext,
        _: wire::EtcdForfeitLeadershipRequest,
    ) -> Result<wire::EtcdForfeitLeadershipReply, Status> {
        let node = self.target(caller)?;
        let state = self.group.state();
        let member = self.etcd_of(&state, &node)?;
        let listed = self.etcd(&state)?.members().await.map_err(|e| call_status(&e))?;
        let status = member.status().await.map_err(|e| call_status(&e))?;
        if status.leader != Some(status.id) {
            let names = names(&listed);
            let leader = status.leader.and_then(|id| names.get(&id).cloned()).unwrap_or_default();
            return Ok(wire::EtcdForfeitLeadershipReply { leader, moved: false });
        }
        let mut failure = Status::failed_precondition(
            "no other voting member of etcd answers, so none can take over the leadership",
        );
        let followers = self.followers(&state, &listed, status.id).await;
        if !followers.is_empty() {
            let from = format!("away from {}", self.name(&node));
            self.record_audit(caller, "move etcd's leadership", &from).await?;
        }
        for to in followers {
            match member.move_leader(to.id).await {
                Ok(()) => {
                    let leader = to.name.clone();
                    return Ok(wire::EtcdForfeitLeadershipReply { leader, moved: true });
                }
                Err(error) => failure = call_status(&error),
            }
        }
        Err(failure)
    }

    /// Returns the voters that answer now and follow this leader.
    async fn followers<'a>(
        &self,
        state: &ClusterState,
        listed: &'a [EtcdMember],
        leader: EtcdMemberId,
    ) -> Vec<&'a EtcdMember> {
        let may_lead = |other: &&EtcdMember| other.id != leader && !other.learner;
        let asked = listed.iter().filter(may_lead).map(async |other| {
            let node = etcd_clients::node_of(state, other)?;
            let member =
                self.with_etcd(|clients| clients.member(state, &node, clock::now())).ok()?;
            let status = member.status().await.ok()?;
            (status.leader == Some(leader)).then_some(other)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    pub(super) async fn etcd_client_config(
        &self,
        caller: &CallContext,
        request: wire::EtcdClientConfigRequest,
    ) -> Result<wire::EtcdClientConfigReply, Status> {
        let state = self.group.state();
        let authorities = state.authorities();
        let authority = &authorities
            .ok_or_else(|| Status::unavailable("the cluster has no etcd authority yet"))?
            .etcd;
        let key = leaf::public_key_of_request(&request.certificate_request)
            .map_err(|error| Status::invalid_argument(chain(&error)))?;
        let lifetime = lifetime(&request)?;
        let name = state.operator(&caller.key).map_or("operator", |operator| &operator.name);
        let profile =
            Profile::EtcdClient { common_name: etcd_clients::common_name(name), lifetime };
        let leaf = leaf::issue(authority, &profile, &key, clock::now())
            .map_err(|error| Status::internal(chain(&error)))?;
        let endpoints = etcd_clients::members(&state).map(|(_, address)| url(address)).collect();
        self.record_audit(caller, "issue etcd client certificate", name).await?;
        Ok(wire::EtcdClientConfigReply {
            certificate_pem: leaf.to_pem(),
            authority_pem: authority.certificate_pem(),
            endpoints,
            expires_ms: UnixMillis::from(leaf.not_after).as_millis(),
        })
    }
}

/// Returns the requested lifetime of a client certificate.
pub(super) fn lifetime(request: &wire::EtcdClientConfigRequest) -> Result<Duration, Status> {
    let lifetime = match request.ttl_ms {
        0 => DEFAULT_TTL,
        ms => Duration::from_millis(ms),
    };
    if lifetime > MAX_TTL {
        return Err(Status::invalid_argument("the maximum lifetime is 30 days"));
    }
    Ok(lifetime)
}

/// Rejects a node that runs no etcd while others do.
fn refuse_without_etcd(state: &ClusterState, node: &NodeId) -> Result<(), Status> {
    let Some(member) = state.member(node) else { return Ok(()) };
    let name = &member.name;
    if member.role == Role::Worker {
        return Err(Status::failed_precondition(format!(
            "{name} is a worker and runs no etcd; name a control-plane node"
        )));
    }
    let mut running = etcd_clients::members(state).map(|(id, _)| id).peekable();
    if running.peek().is_some() && !running.any(|id| id == *node) {
        return Err(Status::unavailable(format!(
            "{name} runs no etcd yet; `musterctl etcd members` shows the nodes that do"
        )));
    }
    Ok(())
}

fn member(listed: EtcdMember) -> wire::EtcdMember {
    wire::EtcdMember {
        id: listed.id.to_string(),
        name: listed.name,
        peer_urls: listed.peer_urls,
        client_urls: listed.client_urls,
        learner: listed.learner,
    }
}

fn names(listed: &[EtcdMember]) -> BTreeMap<EtcdMemberId, String> {
    listed.iter().map(|member| (member.id, member.name.clone())).collect()
}

/// Converts an error of etcd to a gRPC error.
fn call_status(error: &CallError) -> Status {
    if error.is_transient() {
        Status::unavailable(error.to_string())
    } else {
        Status::failed_precondition(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::identity::node_id;
    use muster_pki::token::Verifier;
    use muster_types::{ClusterId, LogIndex};
    use tonic::Code;

    use super::*;
    use muster_state::command::{Admit, FoundCluster, Founder};
    use muster_state::{Command, Outcome, TimestampedCommand};

    const fn key(number: u8) -> muster_types::PublicKey {
        muster_types::PublicKey::from_bytes([number; 32])
    }

    fn founder(number: u8) -> Founder {
        Founder {
            public_key: key(number),
            name: format!("cp-{number}").parse().unwrap(),
            addresses: vec![([192, 0, 2, number], 50_000).into()],
        }
    }

    fn admit(name: &str, number: u8, role: Role) -> Command {
        Command::Admit(Admit {
            public_key: key(number),
            name: name.parse().unwrap(),
            role,
            addresses: vec![([192, 0, 2, number], 50_000).into()],
            version: "0.1.0".to_owned(),
            token: "foundingaa".parse().unwrap(),
            verified_by: node_id(&key(1)),
        })
    }

    #[test]
    fn a_node_without_etcd_is_distinguished_from_a_cluster_without() {
        let mut state = ClusterState::default();
        let found = Command::FoundCluster(Box::new(FoundCluster {
            cluster_id: ClusterId::from_bytes([9; 32]),
            cluster_name: "demo".to_owned(),
            certificate: vec![1],
            founders: vec![founder(1)],
            operators: Vec::new(),
            token: "foundingaa".parse().unwrap(),
            verifier: Verifier::from_bytes(&[1; 64]).unwrap(),
            config_digest: [5; 32],
        }));
        let late = admit("cp-2", 2, Role::ControlPlane);
        let now = UnixMillis::from_millis(1_700_000_000_000);
        for (index, command) in
            (1..).map(LogIndex).zip([found, late, admit("worker-1", 3, Role::Worker)])
        {
            let outcome = state.apply(index, &TimestampedCommand { now, command });
            assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        let refused = |number| refuse_without_etcd(&state, &node_id(&key(number))).err();
        assert!(refused(1).is_none(), "it runs etcd");
        for (number, code, words) in [
            (2, Code::Unavailable, "cp-2 runs no etcd yet;"),
            (3, Code::FailedPrecondition, "worker-1 is a worker and runs no etcd;"),
        ] {
            let status = refused(number).unwrap();
            assert!(status.code() == code && status.message().starts_with(words), "{status}");
        }
    }
}
