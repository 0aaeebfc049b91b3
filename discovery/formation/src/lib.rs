//! From an unconfigured node to a member: finds the other nodes, then takes part in the birth or
//! joins an existing cluster.
//!
//! - [`planner`]: known peers and addresses, and the decisions that follow from them; pure;
//! - [`network`]: the interface to other nodes; [`QuicNetwork`] implements it over QUIC;
//! - `task`: the one task that owns the state and never blocks on a peer;
//! - [`Formation`]: replies to requests of peers before this node is a member.
//!
//! Knows nothing of Raft: it ends with [`Formed`]. After that its task only answers late messages
//! about the birth.

pub mod birth;
pub mod candidate;
mod jobs;
pub mod network;
pub mod planner;
mod quic_network;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use muster_messages::hello::{self, Admitted, BirthMessage, GreetReply, GreetRequest};
use muster_pki::identity::Identity;
use muster_types::{NodeName, PublicKey, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::birth::failpoint::FailPointHook;
use crate::birth::params::{BirthParams, Quorums};
use crate::birth::wire::{WireError, from_wire, to_wire};
use crate::birth::{Certificate, Message, PromiseStore, StoreError, config_digest, driver};
pub use candidate::{Candidate, CandidateError, CandidateState};
use network::Network;
use planner::{FormationPlanner, LocalNode};
pub use quic_network::QuicNetwork;
pub use task::FormationTask;

/// Capacity of the queue of peers' requests.
const INBOX: usize = 64;

/// This node's parameters for formation.
#[derive(Debug)]
pub struct Settings {
    pub identity: Arc<Identity>,
    pub name: NodeName,
    pub role: Role,
    /// Addresses of this node, in order of preference; at most 16 are announced. A proposal names
    /// the latest ones.
    pub addresses: watch::Receiver<Vec<SocketAddr>>,
    pub token_id: String,
    /// Number of founders, 1 to [`MAX_FOUNDERS`](muster_types::limits::MAX_FOUNDERS).
    pub expect: usize,
    /// The names of the founders if the config lists them; otherwise empty.
    pub founders: Vec<NodeName>,
    /// The birth fields by path; public values only.
    pub birth_fields: BTreeMap<String, String>,
    pub hook: FailPointHook,
}

/// The result of formation.
#[derive(Debug, Clone, PartialEq)]
pub enum Formed {
    /// This node is a founder of the cluster of this certificate. Irrevocable.
    Born(Arc<Certificate>),
    /// A cluster has admitted this node.
    Joined(Box<Admitted>),
}

/// Fatal errors of formation. The node must stop.
#[derive(Debug, thiserror::Error)]
pub enum FormationError {
    #[error("cannot store this node's promises")]
    Store(#[from] StoreError),
}

/// Reasons why a peer's request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Candidate(#[from] CandidateError),
    #[error(transparent)]
    Birth(#[from] WireError),
    #[error("this node is stopping")]
    Stopped,
}

/// Handle to the formation task, for peers' requests and the daemon.
#[derive(Debug, Clone)]
pub struct Formation {
    requests: mpsc::Sender<Request>,
    candidate: watch::Receiver<hello::Candidate>,
    formed: watch::Receiver<Option<Formed>>,
}

enum Request {
    Greet { candidate: Candidate, hints: Vec<SocketAddr>, reply: oneshot::Sender<GreetReply> },
    Birth { from: PublicKey, message: Message, reply: oneshot::Sender<Vec<Message>> },
}

/// Creates the handle and the task of formation; the caller spawns [`FormationTask::run`].
///
/// # Errors
/// When the promise store cannot be read.
pub fn prepare<N: Network>(
    settings: Settings,
    store: PromiseStore,
    network: N,
    hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
) -> Result<(Formation, FormationTask<N>), FormationError> {
    let Settings { identity, name, role, mut addresses, token_id, .. } = settings;
    let Settings { expect, founders, birth_fields, hook, .. } = settings;
    let params = BirthParams {
        me: identity.node_id(),
        token_id,
        expect,
        config_digest: config_digest(&birth_fields),
        quorums: Quorums::of,
    };
    let candidate = Candidate {
        public_key: identity.public_key(),
        name,
        role,
        addresses: addresses.borrow_and_update().clone(),
        epoch: 0,
        state: CandidateState::Fresh,
        birth_fields,
    };
    let birth = driver::BirthDriver::new(params, identity, store, hook)?;
    let planner =
        FormationPlanner::new(LocalNode { candidate, expect, founders }, Instant::now().into_std());
    let (requests, inbox) = mpsc::channel(INBOX);
    let task =
        FormationTask::new(planner, birth, network, task::Inputs { inbox, hints, addresses });
    let handle = Formation {
        requests,
        candidate: task.candidate.subscribe(),
        formed: task.formed.subscribe(),
    };
    Ok((handle, task))
}

impl Formation {
    /// Answers a greeting of a peer at `remote` that has proved the token.
    pub async fn greet(
        &self,
        from: PublicKey,
        remote: SocketAddr,
        request: GreetRequest,
    ) -> Result<GreetReply, RequestError> {
        let mut candidate = Candidate::from_wire(from, request.candidate)?;
        if candidate.addresses.is_empty() {
            candidate.addresses.push(remote);
        }
        let hints = candidate::hint_addresses(&request.peers);
        self.ask(|reply| Request::Greet { candidate, hints, reply }).await
    }

    /// Answers one birth message of a peer that has proved the token.
    pub async fn birth(
        &self,
        from: PublicKey,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, RequestError> {
        let message = from_wire(&from, message)?;
        let replies = self.ask(|reply| Request::Birth { from, message, reply }).await?;
        Ok(replies.iter().map(to_wire).collect())
    }

    /// This node's own announcement, with the condition that it waits for; updated continuously.
    pub fn candidate(&self) -> watch::Receiver<hello::Candidate> {
        self.candidate.clone()
    }

    /// Waits until this node belongs to a cluster. `None` if formation was stopped before.
    pub async fn formed(&self) -> Option<Formed> {
        let mut formed = self.formed.clone();
        formed.wait_for(Option::is_some).await.ok().and_then(|formed| formed.clone())
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| RequestError::Stopped)?;
        answer.await.map_err(|_| RequestError::Stopped)
    }
}
