//! Client of a cluster: tries several endpoints in turn.

use std::net::SocketAddr;

use muster_types::etcd::EtcdMemberId;

use super::connect::Tls;
use super::error::{CallError, CallErrorKind};
use super::member::{Alarm, Deadlines, EtcdMember, MemberClient};

/// Client that uses the first member that answers. A call may be executed twice. etcd reports a
/// repeated add, promote or remove ([`CallErrorKind::MemberExists`], [`CallErrorKind::NotLearner`],
/// [`CallErrorKind::MemberNotFound`]), and the caller treats it as done.
#[derive(Debug, Clone)]
pub struct EtcdClient {
    members: Vec<MemberClient>,
}

/// Tries one call on each member until one answers.
macro_rules! try_each {
    ($self:ident, $member:ident => $call:expr) => {{
        let mut last = None;
        for $member in &$self.members {
            match $call.await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.may_succeed_elsewhere() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("a client has endpoints"))
    }};
}

impl EtcdClient {
    /// Client of these endpoints, in this order; `None` if the list is empty. Must be called within
    /// a tokio runtime. Create a new client when the credentials are renewed.
    pub fn new(endpoints: &[SocketAddr], tls: &Tls, deadlines: Deadlines) -> Option<Self> {
        let members: Vec<_> =
            endpoints.iter().map(|endpoint| MemberClient::new(*endpoint, tls, deadlines)).collect();
        (!members.is_empty()).then_some(Self { members })
    }

    /// Clients of the single endpoints, for calls that concern one member.
    pub fn member_clients(&self) -> &[MemberClient] {
        &self.members
    }

    /// [`MemberClient::get`] from the first member that answers.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        try_each!(self, member => member.get(key))
    }

    /// [`MemberClient::put`] through the first member that answers; may be applied twice.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64, CallError> {
        try_each!(self, member => member.put(key, value))
    }

    /// [`MemberClient::members`] from the first member that answers.
    pub async fn members(&self) -> Result<Vec<EtcdMember>, CallError> {
        try_each!(self, member => member.members())
    }

    /// [`MemberClient::current_members`] from the first member that answers. The read and the list
    /// always come from the same member.
    pub async fn current_members(&self) -> Result<Vec<EtcdMember>, CallError> {
        try_each!(self, member => member.current_members())
    }

    /// [`MemberClient::add_learner`] through the first member that answers.
    pub async fn add_learner(
        &self,
        peer_url: &str,
    ) -> Result<(EtcdMember, Vec<EtcdMember>), CallError> {
        try_each!(self, member => member.add_learner(peer_url))
    }

    /// [`MemberClient::promote`] through the first member that answers.
    pub async fn promote(&self, id: EtcdMemberId) -> Result<Vec<EtcdMember>, CallError> {
        try_each!(self, member => member.promote(id))
    }

    /// [`MemberClient::remove`] through the first member that answers.
    pub async fn remove(&self, id: EtcdMemberId) -> Result<Vec<EtcdMember>, CallError> {
        try_each!(self, member => member.remove(id))
    }

    /// [`MemberClient::update`] through the first member that answers.
    pub async fn update(
        &self,
        id: EtcdMemberId,
        peer_url: &str,
    ) -> Result<Vec<EtcdMember>, CallError> {
        try_each!(self, member => member.update(id, peer_url))
    }

    /// [`MemberClient::alarms`] from the first member that answers.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, CallError> {
        try_each!(self, member => member.alarms())
    }

    /// [`MemberClient::disarm`] through the first member that answers.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), CallError> {
        try_each!(self, member => member.disarm(alarm))
    }

    /// Transfers leadership to `to`, through the current leader. Does nothing if it already leads.
    pub async fn move_leader(&self, to: EtcdMemberId) -> Result<(), CallError> {
        let mut last = None;
        for member in &self.members {
            let moved = match member.status().await {
                Ok(status) if status.leader == Some(to) => return Ok(()),
                Ok(status) if status.leader != Some(status.id) => continue,
                Ok(_) => member.move_leader(to).await,
                Err(error) => Err(error),
            };
            match moved {
                Ok(()) => return Ok(()),
                Err(error) if error.kind == CallErrorKind::BadTransferee => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let endpoint = self.members[0].endpoint();
            CallError::no_leader(endpoint, "MoveLeader")
        }))
    }
}
