//! Client of one etcd member.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::etcd::EtcdMemberId;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::connect::{Connections, Tls};
use super::error::{CallError, CallErrorKind};
use super::wire;
use super::wire::cluster_client::ClusterClient;
use super::wire::kv_client::KvClient;
use super::wire::maintenance_client::MaintenanceClient;

/// Largest response decoded: members, a status, a few keys. Snapshots come in chunks of 32 KiB.
const MAX_RESPONSE: usize = 4 << 20;

/// A member in etcd's member list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    pub id: EtcdMemberId,
    /// Empty until the member has started once.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Empty until the member has started once.
    pub client_urls: Vec<String>,
    pub learner: bool,
}

impl From<wire::Member> for EtcdMember {
    fn from(member: wire::Member) -> Self {
        Self {
            id: EtcdMemberId(member.id),
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            learner: member.is_learner,
        }
    }
}

/// Status that a member reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    pub id: EtcdMemberId,
    pub cluster: u64,
    pub version: String,
    /// Size of the database file in bytes.
    pub db_size: u64,
    /// Bytes in use; defragmenting frees the rest.
    pub db_size_in_use: u64,
    /// `None` while it knows no leader.
    pub leader: Option<EtcdMemberId>,
    pub learner: bool,
    pub raft_term: u64,
    pub raft_index: u64,
    pub raft_applied_index: u64,
    pub errors: Vec<String>,
}

/// An alarm and the member that raised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Alarm {
    pub member: EtcdMemberId,
    pub kind: AlarmKind,
}

/// Cause of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlarmKind {
    /// The backend quota is exhausted; etcd rejects writes.
    NoSpace,
    /// The member's data differ from the others'.
    Corrupt,
    /// Unknown to this version of Muster.
    Unknown(i32),
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("NOSPACE"),
            Self::Corrupt => f.write_str("CORRUPT"),
            Self::Unknown(number) => write!(f, "alarm {number}"),
        }
    }
}

/// Health of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberHealth {
    /// Answers linearizable reads: it is connected to a leader that has a majority.
    Serving,
    /// A learner: follows, and rejects such reads until promoted.
    Learner,
}

/// Timeouts of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Reads, writes, status and alarms.
    pub call: Duration,
    /// Membership and leader changes: etcd may take 7 s to report a failure.
    pub change: Duration,
    /// Defragmenting, which rewrites the database, and hashing.
    pub heavy: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(3),
            change: Duration::from_secs(10),
            heavy: Duration::from_mins(2),
        }
    }
}

/// Client of one endpoint. Cheap to clone; connects on first use.
#[derive(Debug, Clone)]
pub struct MemberClient {
    endpoint: SocketAddr,
    channel: Channel,
    connections: Connections,
    deadlines: Deadlines,
}

impl MemberClient {
    /// Client of `endpoint`. Must be called within a tokio runtime.
    pub fn new(endpoint: SocketAddr, tls: &Tls, deadlines: Deadlines) -> Self {
        let (channel, connections) = tls.channel(endpoint);
        Self { endpoint, channel, connections, deadlines }
    }

    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Checks the health with a linearizable read of an arbitrary key.
    pub async fn health(&self) -> Result<MemberHealth, CallError> {
        // The key that etcdctl's health check reads; it need not exist.
        match self.get(b"health").await {
            Ok(_) => Ok(MemberHealth::Serving),
            Err(error) if error.kind == CallErrorKind::NotSupportedByLearner => {
                Ok(MemberHealth::Learner)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads one key, linearizably.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        let request = wire::RangeRequest { key: key.to_vec(), ..Default::default() };
        let mut kv = self.kv();
        let reply = self.call("Range", self.deadlines.call, kv.range(request)).await?;
        Ok(reply.kvs.into_iter().next().map(|found| found.value))
    }

    /// Reads all keys with `prefix`, linearizably and at one revision.
    pub async fn list(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, CallError> {
        let mut range_end = prefix.to_vec();
        // The end of the prefix's range: the last byte below 255, incremented.
        while range_end.pop_if(|last| *last == u8::MAX).is_some() {}
        match range_end.last_mut() {
            Some(last) => *last += 1,
            None => range_end.push(0),
        }
        let request = wire::RangeRequest { key: prefix.to_vec(), range_end, ..Default::default() };
        let mut kv = self.kv();
        let reply = self.call("Range", self.deadlines.call, kv.range(request)).await?;
        Ok(reply.kvs.into_iter().map(|found| (found.key, found.value)).collect())
    }

    /// Writes one key; returns the revision.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64, CallError> {
        let request = wire::PutRequest { key: key.to_vec(), value: value.to_vec() };
        let mut kv = self.kv();
        let reply = self.call("Put", self.deadlines.call, kv.put(request)).await?;
        Ok(reply.header.unwrap_or_default().revision)
    }

    /// Deletes one key; returns whether it existed.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, CallError> {
        let request = wire::DeleteRangeRequest { key: key.to_vec(), range_end: Vec::new() };
        let mut kv = self.kv();
        let reply = self.call("DeleteRange", self.deadlines.call, kv.delete_range(request)).await?;
        Ok(reply.deleted > 0)
    }

    /// Lists all members, voters and learners. Linearizable since etcd 3.5; etcd 3.4 answers from
    /// its own, possibly stale, state: make no decision based on it.
    pub async fn members(&self) -> Result<Vec<EtcdMember>, CallError> {
        let request = wire::MemberListRequest { linearizable: true };
        let mut cluster = self.cluster();
        self.membership("MemberList", self.deadlines.call, cluster.member_list(request)).await
    }

    /// Lists all members, no older than this call. etcd 3.4 answers a list from memory, however
    /// old. But a linearizable read waits until the member has applied everything committed before,
    /// membership changes included. So the read comes first, and the list must come over the same
    /// connection: a member that restarted in between may have applied less.
    pub async fn current_members(&self) -> Result<Vec<EtcdMember>, CallError> {
        self.get(b"muster").await?;
        let connection = self.connections.count();
        let listed = self.members().await?;
        if self.connections.count() == connection {
            return Ok(listed);
        }
        Err(CallError::reconnected(self.endpoint, "MemberList"))
    }

    /// Adds a learner (etcd allows one at a time); returns it and all members, including it.
    pub async fn add_learner(
        &self,
        peer_url: &str,
    ) -> Result<(EtcdMember, Vec<EtcdMember>), CallError> {
        let request =
            wire::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let mut cluster = self.cluster();
        let reply =
            self.call("MemberAdd", self.deadlines.change, cluster.member_add(request)).await?;
        let added = reply.member.ok_or_else(|| {
            CallError::malformed(self.endpoint, "MemberAdd", "the response holds no member")
        })?;
        Ok((added.into(), reply.members.into_iter().map(EtcdMember::from).collect()))
    }

    /// Promotes a learner to voter; [`CallErrorKind::LearnerNotReady`] until it has caught up.
    pub async fn promote(&self, id: EtcdMemberId) -> Result<Vec<EtcdMember>, CallError> {
        let request = wire::MemberPromoteRequest { id: id.0 };
        let mut cluster = self.cluster();
        let call = cluster.member_promote(request);
        self.membership("MemberPromote", self.deadlines.change, call).await
    }

    /// Removes a member; its etcd process exits when it applies the removal.
    pub async fn remove(&self, id: EtcdMemberId) -> Result<Vec<EtcdMember>, CallError> {
        let request = wire::MemberRemoveRequest { id: id.0 };
        let mut cluster = self.cluster();
        let call = cluster.member_remove(request);
        self.membership("MemberRemove", self.deadlines.change, call).await
    }

    /// Changes a member's peer URL in the cluster.
    pub async fn update(
        &self,
        id: EtcdMemberId,
        peer_url: &str,
    ) -> Result<Vec<EtcdMember>, CallError> {
        let request = wire::MemberUpdateRequest { id: id.0, peer_ur_ls: vec![peer_url.to_owned()] };
        let mut cluster = self.cluster();
        let call = cluster.member_update(request);
        self.membership("MemberUpdate", self.deadlines.change, call).await
    }

    /// Reads the member's status about itself; works without a leader.
    pub async fn status(&self) -> Result<MemberStatus, CallError> {
        let mut maintenance = self.maintenance();
        let call = maintenance.status(wire::StatusRequest {});
        let reply = self.call("Status", self.deadlines.call, call).await?;
        let header = reply.header.unwrap_or_default();
        Ok(MemberStatus {
            id: EtcdMemberId(header.member_id),
            cluster: header.cluster_id,
            version: reply.version,
            db_size: reply.db_size.max(0).cast_unsigned(),
            db_size_in_use: reply.db_size_in_use.max(0).cast_unsigned(),
            leader: (reply.leader != 0).then_some(EtcdMemberId(reply.leader)),
            learner: reply.is_learner,
            raft_term: reply.raft_term,
            raft_index: reply.raft_index,
            raft_applied_index: reply.raft_applied_index,
            errors: reply.errors,
        })
    }

    /// Lists the alarms of all members.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, CallError> {
        self.alarm(wire::alarm_request::AlarmAction::Get, 0, wire::AlarmType::None as i32).await
    }

    /// Clears one alarm; an unknown one cannot be cleared. Fix its cause first.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), CallError> {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => wire::AlarmType::Nospace as i32,
            AlarmKind::Corrupt => wire::AlarmType::Corrupt as i32,
            AlarmKind::Unknown(number) => number,
        };
        let action = wire::alarm_request::AlarmAction::Deactivate;
        self.alarm(action, alarm.member.0, kind).await.map(drop)
    }

    /// Returns free space in the database to the file system. The member does not answer meanwhile:
    /// defragment one member at a time.
    pub async fn defragment(&self) -> Result<(), CallError> {
        let mut maintenance = self.maintenance();
        let call = maintenance.defragment(wire::DefragmentRequest {});
        self.call("Defragment", self.deadlines.heavy, call).await.map(drop)
    }

    /// Returns a hash of all data up to the newest revision, and that revision. Members at the same
    /// revision and compaction have the same hash.
    pub async fn hash(&self) -> Result<(u32, i64), CallError> {
        let mut maintenance = self.maintenance();
        let call = maintenance.hash_kv(wire::HashKvRequest { revision: 0 });
        let reply = self.call("HashKV", self.deadlines.heavy, call).await?;
        Ok((reply.hash, reply.header.unwrap_or_default().revision))
    }

    /// Transfers leadership to another voter. Only the leader can: others return
    /// [`CallErrorKind::NotLeader`].
    pub async fn move_leader(&self, to: EtcdMemberId) -> Result<(), CallError> {
        let mut maintenance = self.maintenance();
        let call = maintenance.move_leader(wire::MoveLeaderRequest { target_id: to.0 });
        self.call("MoveLeader", self.deadlines.change, call).await.map(drop)
    }

    pub(super) async fn snapshot(
        &self,
    ) -> Result<tonic::Streaming<wire::SnapshotResponse>, CallError> {
        let mut maintenance = self.maintenance();
        let call = maintenance.snapshot(wire::SnapshotRequest {});
        self.call("Snapshot", self.deadlines.change, call).await
    }

    async fn alarm(
        &self,
        action: wire::alarm_request::AlarmAction,
        member: u64,
        alarm: i32,
    ) -> Result<Vec<Alarm>, CallError> {
        let request = wire::AlarmRequest { action: action.into(), member_id: member, alarm };
        let mut maintenance = self.maintenance();
        let reply = self.call("Alarm", self.deadlines.call, maintenance.alarm(request)).await?;
        let known = |number| match wire::AlarmType::try_from(number) {
            Ok(wire::AlarmType::Nospace) => AlarmKind::NoSpace,
            Ok(wire::AlarmType::Corrupt) => AlarmKind::Corrupt,
            Ok(wire::AlarmType::None) | Err(_) => AlarmKind::Unknown(number),
        };
        let alarms = reply.alarms.into_iter();
        Ok(alarms
            .map(|a| Alarm { member: EtcdMemberId(a.member_id), kind: known(a.alarm) })
            .collect())
    }

    async fn membership(
        &self,
        name: &'static str,
        within: Duration,
        call: impl Future<Output = Result<Response<wire::MembersResponse>, Status>>,
    ) -> Result<Vec<EtcdMember>, CallError> {
        let reply = self.call(name, within, call).await?;
        Ok(reply.members.into_iter().map(EtcdMember::from).collect())
    }

    async fn call<T>(
        &self,
        name: &'static str,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        match timeout(within, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(CallError::from_status(self.endpoint, name, &status)),
            Err(_) => Err(CallError::deadline(self.endpoint, name, within)),
        }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE)
    }
}
