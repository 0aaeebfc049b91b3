//! Opens this node's Raft store and starts Raft on it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use muster_transport::endpoint::Endpoint;
use muster_types::{ClusterId, NodeId};
use openraft::error::{InitializeError, RaftError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::group::{Leadership, Watched};
use super::network::Network;
use super::types::{Opened, Raft};
use super::{Group, timing, watch as quorum_watch};
use muster_storage::{self, OpenError, Owner, SLED, Stall};

/// Parameters of this node's Raft.
#[derive(Debug)]
pub struct Start {
    pub dir: PathBuf,
    pub me: NodeId,
    pub cluster: ClusterId,
    /// On a founder: the founders named in the birth certificate. All initialise Raft with the same
    /// set, so doing it twice or on several nodes is harmless. `None` on other nodes.
    pub founders: Option<BTreeSet<NodeId>>,
    pub snapshot_every: u64,
}

/// Errors that keep this node's Raft from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("invalid Raft timers")]
    Config(#[source] Box<openraft::ConfigError>),
    #[error("cannot open the Raft store")]
    Open(#[source] OpenError),
    #[error("cannot start Raft: {0}")]
    Core(String),
    #[error("the task that opens the Raft store panicked")]
    Panicked,
}

/// The started Raft of this node; [`Self::run`] is its task.
#[derive(Debug)]
pub struct Running {
    pub group: Group,
    lead: watch::Sender<Leadership>,
    stall: Stall,
    parting: watch::Receiver<bool>,
}

impl Running {
    /// Runs the quorum watch until `stop`, then shuts Raft down.
    pub async fn run(self, stop: CancellationToken) {
        let Self { group, lead, stall, parting } = self;
        let raft = group.raft().clone();
        quorum_watch::watch_quorum(raft.clone(), lead, stall, parting, stop).await;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "Raft's core panicked");
        }
    }
}

/// Creates the store of a node that enters `cluster`. If the node was a member before
/// (`known`), its store must exist.
pub async fn claim(
    dir: PathBuf,
    me: NodeId,
    cluster: ClusterId,
    known: bool,
) -> Result<(), StartError> {
    let owner = Owner { node: me, cluster };
    let claimed = tokio::task::spawn_blocking(move || {
        if known { muster_storage::require(&dir) } else { muster_storage::make(&dir, &owner, SLED) }
    });
    claimed.await.map_err(|_| StartError::Panicked)?.map_err(StartError::Open)
}

/// Starts this node's Raft.
pub async fn start(start: Start, endpoint: Endpoint) -> Result<Running, StartError> {
    let Start { dir, me, cluster, founders, snapshot_every } = start;
    let config = timing::config(&cluster, snapshot_every)
        .validate()
        .map_err(|error| StartError::Config(Box::new(error)))?;
    let owner = Owner { node: me, cluster };
    let Opened { log, machine, state } =
        tokio::task::spawn_blocking(move || muster_storage::open(&dir, &owner, SLED))
            .await
            .map_err(|_| StartError::Panicked)?
            .map_err(StartError::Open)?;
    let core = |error: &dyn std::error::Error| StartError::Core(muster_types::error::chain(error));
    let stall = log.stall();
    let network = Network::new(endpoint.clone(), &log);
    let raft = Raft::new(me, Arc::new(config), network, log.ahead_as(me), machine)
        .await
        .map_err(|error| core(&error))?;
    if let Some(founders) = founders {
        match raft.initialize(founders).await {
            // Raft was initialised before: this is a restart.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(core(&error)),
        }
    }
    let (lead, leads) = watch::channel(Leadership::default());
    let (follow, parting) = watch::channel(false);
    let watched = Watched { lead: leads, stall: stall.clone(), parting: follow };
    let group = Group::new(me, raft, endpoint, state, watched);
    Ok(Running { group, lead, stall, parting })
}
