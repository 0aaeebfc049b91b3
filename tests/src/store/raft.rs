//! openraft with a single voter on a store: it must start from the store's contents.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use openraft::error::{RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, Snapshot, Vote};

use super::Node;
use super::node::Config;
use super::script::StoreContents;

/// Network without any peer.
struct NoNetwork;

type Failed<E = openraft::error::Infallible> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

fn unreachable() -> Unreachable {
    Unreachable::new(&std::io::Error::other("no network"))
}

impl RaftNetworkFactory<Config> for NoNetwork {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &EmptyNode) -> Self {
        Self
    }
}

impl RaftNetwork<Config> for NoNetwork {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Config>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        Err(unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote<u64>,
        _: Snapshot<Config>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Config, openraft::error::Fatal<u64>>> {
        Err(unreachable().into())
    }
}

/// Starts openraft on `node` and compares its view with `contents`.
pub async fn check_start(node: Node, contents: &StoreContents) -> Result<()> {
    let config = openraft::Config { enable_elect: false, ..Default::default() };
    let raft =
        openraft::Raft::<Config>::new(1, Arc::new(config), NoNetwork, node.log, node.machine)
            .await
            .context("start openraft")?;
    let last = contents.log.last_key_value().map(|(index, _)| *index);
    // Entries that an installed snapshot covers are purged at the start, unless that was done
    // before.
    let last = last.or(contents.purged.map(|(index, _)| index)).max(contents.snapshot);
    let applied = contents.committed.map(|(index, _)| index).max(contents.snapshot);
    let wait = raft.wait(Some(Duration::from_secs(10)));
    let waited = wait.metrics(
        |metrics| {
            metrics.running_state.is_ok()
                && metrics.vote.leader_id.term == contents.vote.unwrap_or(0)
                && metrics.last_log_index == last
                && metrics.last_applied.map(|id| id.index) == applied
        },
        "openraft sees what the store holds",
    );
    let waited = waited.await;
    raft.shutdown().await.context("stop openraft")?;
    waited?;
    Ok(())
}

/// Starts openraft as the only voter and waits until it leads.
pub async fn single_voter(node: Node) -> Result<openraft::Raft<Config>> {
    let config = Arc::new(openraft::Config::default().validate()?);
    let raft = openraft::Raft::new(1, config, NoNetwork, node.log, node.machine).await?;
    if !raft.is_initialized().await? {
        raft.initialize(BTreeSet::from([1])).await?;
    }
    raft.wait(Some(Duration::from_secs(10))).current_leader(1, "it leads").await?;
    Ok(raft)
}
