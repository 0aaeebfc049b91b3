//! Opens this node's Raft store and starts Raft on it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use muster_transport::endpoint::Endpoint;
use muster_types::{ClusterId, NodeId};
use openraft::error::{InitializeError, RaftError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::network::Network;
use super::quorum_watch::{Leadership, WatchChannels, watch_quorum};
use super::timing;
use super::types::{Raft, RaftStorage};
use muster_storage::{self, DiskStall, OpenError, SLED, StoreIdentity};

/// Parameters of this node's Raft.
#[derive(Debug)]
pub struct StartOptions {
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
pub struct RaftTask {
    pub group: Group,
    leadership: watch::Sender<Leadership>,
    stall: DiskStall,
    stepping_down: watch::Receiver<bool>,
}

impl RaftTask {
    /// Runs the quorum watch until `stop`, then shuts Raft down.
    pub async fn run(self, stop: CancellationToken) {
        let Self { group, leadership, stall, stepping_down } = self;
        let raft = group.raft;
        watch_quorum(raft.clone(), leadership, stall, stepping_down, stop).await;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "Raft's core panicked");
        }
    }
}

/// Creates the store of a node that enters `cluster`. If the node was a member before
/// (`was_member`), its store must exist.
pub(crate) async fn prepare_store(
    dir: PathBuf,
    me: NodeId,
    cluster: ClusterId,
    was_member: bool,
) -> Result<(), StartError> {
    let identity = StoreIdentity { node: me, cluster };
    let prepared = tokio::task::spawn_blocking(move || {
        if was_member {
            muster_storage::require_existing(&dir)
        } else {
            muster_storage::create(&dir, &identity, SLED)
        }
    });
    prepared.await.map_err(|_| StartError::Panicked)?.map_err(StartError::Open)
}

/// Starts this node's Raft.
pub async fn start(start: StartOptions, endpoint: Endpoint) -> Result<RaftTask, StartError> {
    let StartOptions { dir, me, cluster, founders, snapshot_every } = start;
    let config = timing::config(&cluster, snapshot_every)
        .validate()
        .map_err(|error| StartError::Config(Box::new(error)))?;
    let identity = StoreIdentity { node: me, cluster };
    let RaftStorage { log, machine, state } =
        tokio::task::spawn_blocking(move || muster_storage::open(&dir, &identity, SLED))
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
    let (leadership, leadership_reader) = watch::channel(Leadership::default());
    let (stepping_down_writer, stepping_down) = watch::channel(false);
    let channels = WatchChannels {
        leadership: leadership_reader,
        stall: stall.clone(),
        stepping_down: stepping_down_writer,
    };
    let group = Group::new(me, raft, endpoint, state, channels);
    Ok(RaftTask { group, leadership, stall, stepping_down })
}
