//! Client of a cluster: tries several endpoints in turn.

use std::net::SocketAddr;

use super::connect::Tls;
use super::error::{CallError, Kind};
use super::member::{Alarm, Deadlines, Listed, Member, MemberId};

/// Client that uses the first member that answers. A call may be executed twice. etcd reports a
/// repeated add, promote or remove ([`Kind::MemberExists`], [`Kind::NotLearner`],
/// [`Kind::MemberNotFound`]), and the caller treats it as done.
#[derive(Debug, Clone)]
pub struct Client {
    members: Vec<Member>,
}

/// Tries one call on each member until one answers.
macro_rules! ask {
    ($self:ident, $member:ident => $call:expr) => {{
        let mut last = None;
        for $member in &$self.members {
            match $call.await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_about_this_member() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("a client has endpoints"))
    }};
}

impl Client {
    /// Client of these endpoints, in this order; `None` if the list is empty. Must be called within
    /// a tokio runtime. Create a new client when the credentials are renewed.
    pub fn new(endpoints: &[SocketAddr], tls: &Tls, deadlines: Deadlines) -> Option<Self> {
        let members: Vec<_> =
            endpoints.iter().map(|endpoint| Member::new(*endpoint, tls, deadlines)).collect();
        (!members.is_empty()).then_some(Self { members })
    }

    /// Clients of the single endpoints, for calls that concern one member.
    pub fn members_asked(&self) -> &[Member] {
        &self.members
    }

    /// [`Member::get`] from the first member that answers.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        ask!(self, member => member.get(key))
    }

    /// [`Member::put`] through the first member that answers; may be applied twice.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64, CallError> {
        ask!(self, member => member.put(key, value))
    }

    /// [`Member::members`] from the first member that answers.
    pub async fn members(&self) -> Result<Vec<Listed>, CallError> {
        ask!(self, member => member.members())
    }

    /// [`Member::current_members`] from the first member that answers. The read and the list
    /// always come from the same member.
    pub async fn current_members(&self) -> Result<Vec<Listed>, CallError> {
        ask!(self, member => member.current_members())
    }

    /// [`Member::add_learner`] through the first member that answers.
    pub async fn add_learner(&self, peer_url: &str) -> Result<(Listed, Vec<Listed>), CallError> {
        ask!(self, member => member.add_learner(peer_url))
    }

    /// [`Member::promote`] through the first member that answers.
    pub async fn promote(&self, id: MemberId) -> Result<Vec<Listed>, CallError> {
        ask!(self, member => member.promote(id))
    }

    /// [`Member::remove`] through the first member that answers.
    pub async fn remove(&self, id: MemberId) -> Result<Vec<Listed>, CallError> {
        ask!(self, member => member.remove(id))
    }

    /// [`Member::update`] through the first member that answers.
    pub async fn update(&self, id: MemberId, peer_url: &str) -> Result<Vec<Listed>, CallError> {
        ask!(self, member => member.update(id, peer_url))
    }

    /// [`Member::alarms`] from the first member that answers.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, CallError> {
        ask!(self, member => member.alarms())
    }

    /// [`Member::disarm`] through the first member that answers.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), CallError> {
        ask!(self, member => member.disarm(alarm))
    }

    /// Transfers leadership to `to`, through the current leader. Does nothing if it already leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), CallError> {
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
                Err(error) if error.kind == Kind::BadTransferee => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let endpoint = self.members[0].endpoint();
            CallError::no_leader(endpoint, "MoveLeader")
        }))
    }
}
