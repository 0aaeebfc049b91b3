//! openraft's network over the node API: one unary RPC per message, a stream for a snapshot.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_messages::node::{RaftMessage, SnapshotChunk};
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{Endpoint, NodeChannel};
use muster_types::NodeId;
use muster_types::wire::MAX_MESSAGE;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, Vote};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Response, Status};
use tracing::info;

use super::codec::{SnapshotHeader, decode, encode};
use super::types::{LogStore, Snapshot, TypeConfig};
use muster_storage::DurableWatch;

/// Size of a snapshot chunk on the wire, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Delay before an unreachable peer is retried: one or two heartbeats, so that a healed partition
/// or a restarted node is noticed at once.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Creates [`PeerClient`]s: one per peer, and openraft requests another for every read.
#[derive(Debug, Clone)]
pub(super) struct Network {
    endpoint: Endpoint,
    log_watch: LogWatch,
    unreachable_peers: UnreachablePeers,
}

/// State of this node's own log that limits what may be sent from it.
#[derive(Debug, Clone)]
struct LogWatch {
    flushed: DurableWatch,
    voted: watch::Receiver<Option<Vote<NodeId>>>,
}

impl Network {
    pub(super) fn new(endpoint: Endpoint, log: &LogStore) -> Self {
        let log_watch = LogWatch { flushed: log.flushed(), voted: log.voted() };
        Self { endpoint, log_watch, unreachable_peers: UnreachablePeers::default() }
    }
}

/// Peers that did not answer the last append, over any client. Only changes are logged.
#[derive(Debug, Clone, Default)]
struct UnreachablePeers(Arc<Mutex<BTreeSet<NodeId>>>);

impl UnreachablePeers {
    /// Records whether the peer answers; returns whether that changed.
    fn record(&self, peer: NodeId, answers: bool) -> bool {
        let mut unreachable_peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers { unreachable_peers.remove(&peer) } else { unreachable_peers.insert(peer) }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, _: &EmptyNode) -> PeerClient {
        let client = NodeClient::new(self.endpoint.channel(target))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let bulk = NodeClient::new(self.endpoint.bulk_channel(target));
        PeerClient {
            target,
            client,
            bulk,
            log_watch: self.log_watch.clone(),
            unreachable_peers: self.unreachable_peers.clone(),
        }
    }
}

/// Connection to one peer.
#[derive(Debug)]
pub(super) struct PeerClient {
    target: NodeId,
    client: NodeClient<NodeChannel>,
    /// For snapshots, which must not delay heartbeats.
    bulk: NodeClient<NodeChannel>,
    log_watch: LogWatch,
    unreachable_peers: UnreachablePeers,
}

type RaftRpcError = RPCError<NodeId, EmptyNode, RaftError<NodeId>>;

impl PeerClient {
    /// Sends one message and reads the reply, which may be the peer's own error.
    async fn request<T: DeserializeOwned>(
        &self,
        answer: impl Future<Output = Result<Response<RaftMessage>, Status>>,
        limit: Duration,
    ) -> Result<T, RaftRpcError> {
        let answer = timeout(limit, answer).await.map_err(|elapsed| unreachable(&elapsed))?;
        let body = answer.map_err(|status| unreachable(&status))?.into_inner().body;
        let answer: Result<T, RaftError<NodeId>> = decode(&body, "answer")
            .map_err(|status| RPCError::Network(NetworkError::new(&status)))?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl PeerClient {
    fn log_reachability<T>(&self, answer: &Result<T, RaftRpcError>) {
        let peer = self.target.short();
        let changed = self.unreachable_peers.record(self.target, answer.is_ok());
        match answer {
            Ok(_) if changed => info!(peer, "Raft peer is reachable again"),
            Err(error) if changed => info!(peer, %error, "Raft peer is unreachable"),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Returns the problem of an append that the leader of `voted` would not send.
///
/// In openraft 0.9, replication tasks of a deposed leader keep sending. They read the current log,
/// which a new leader may have rewritten or purged meanwhile, and send it with the old vote and the
/// old position. A follower that knows only that vote would append one leader's entries to
/// another's (openraft issue 1184). The vote of the new leader is on disk before anything is
/// rewritten, so entries read after that are caught here.
fn append_problem(
    append: &AppendEntriesRequest<TypeConfig>,
    voted: Option<&Vote<NodeId>>,
) -> Option<&'static str> {
    let next = append.prev_log_id.map_or(0, |prev| prev.index + 1);
    if voted != Some(&append.vote) {
        return Some("this node no longer leads in the term of this append");
    }
    let has_gap = append.entries.first().is_some_and(|entry| entry.log_id.index != next);
    has_gap.then_some("the entries of this append are no longer in the log")
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RaftRpcError {
    RPCError::Unreachable(Unreachable::new(error))
}

fn message(body: &impl Serialize) -> RaftMessage {
    RaftMessage { body: encode(body) }
}

impl RaftNetwork<TypeConfig> for PeerClient {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RaftRpcError> {
        if let Some(why) = append_problem(&rpc, self.log_watch.voted.borrow().as_ref()) {
            return Err(RPCError::Network(NetworkError::new(&std::io::Error::other(why))));
        }
        if let Some(committed) = &rpc.leader_commit {
            // No peer learns that an entry is committed before this node's own disk holds it. A
            // leader whose disk hangs becomes silent by this and is replaced. The whole message
            // waits: with a lower commit index instead, a membership change could leave before the
            // change that it is based on is on this disk.
            timeout(option.hard_ttl(), self.log_watch.flushed.wait_for(committed.index))
                .await
                .map_err(|elapsed| RPCError::Network(NetworkError::new(&elapsed)))?
                .map_err(|error| unreachable(&error))?;
        }
        let mut client = self.client.clone();
        let answer = self.request(client.append_entries(message(&rpc)), option.hard_ttl()).await;
        self.log_reachability(&answer);
        answer
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RaftRpcError> {
        let mut client = self.client.clone();
        self.request(client.request_vote(message(&rpc)), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<NodeId>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let header = encode(&SnapshotHeader { vote, meta: snapshot.meta });
        let body = snapshot.snapshot.0;
        let first = SnapshotChunk { header, body: Vec::new() };
        let rest = (0..body.len()).step_by(CHUNK_BYTES).map(move |start| {
            let end = body.len().min(start + CHUNK_BYTES);
            SnapshotChunk { header: Vec::new(), body: body[start..end].to_vec() }
        });
        let pieces = futures::stream::iter(std::iter::once(first).chain(rest));
        let mut client = self.bulk.clone();
        let lost = |error: &(dyn std::error::Error + 'static)| {
            StreamingError::Unreachable(Unreachable::new(&std::io::Error::other(error.to_string())))
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = timeout(option.hard_ttl(), client.install_snapshot(pieces)) => {
                let answer = answer.map_err(|elapsed| lost(&elapsed))?;
                let body = answer.map_err(|status| lost(&status))?.into_inner().body;
                let answer: Result<SnapshotResponse<NodeId>, Fatal<NodeId>> =
                    decode(&body, "answer").map_err(|status| lost(&status))?;
                answer.map_err(|fatal| {
                    StreamingError::RemoteError(RemoteError::new(self.target, fatal))
                })
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_DELAY))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use muster_pki::identity::Identity;
    use muster_transport::endpoint::Bind;
    use openraft::{CommittedLeaderId, Entry, LogId};

    use super::*;

    #[test]
    fn an_append_from_a_log_that_another_leader_has_rewritten_or_purged_is_rejected() {
        let me = NodeId::from_bytes([1; 32]);
        let at = |term, index| LogId::new(CommittedLeaderId::new(term, me), index);
        let append = |prev, entries: &[LogId<NodeId>]| AppendEntriesRequest {
            vote: Vote::new_committed(5, me),
            prev_log_id: prev,
            entries: entries.iter().map(|id| Entry { log_id: *id, ..Entry::default() }).collect(),
            leader_commit: None,
        };
        let leads = Vote::new_committed(5, me);
        let next = append(Some(at(5, 9)), &[at(5, 10), at(5, 11)]);
        assert_eq!(append_problem(&next, Some(&leads)), None);
        assert_eq!(append_problem(&append(None, &[at(5, 0)]), Some(&leads)), None);
        assert_eq!(append_problem(&append(Some(at(5, 9)), &[]), Some(&leads)), None);
        for other in [Vote::new(5, me), Vote::new_committed(6, NodeId::from_bytes([2; 32]))] {
            assert!(append_problem(&next, Some(&other)).is_some(), "{other}");
        }
        assert!(append_problem(&next, None).is_some());
        assert!(append_problem(&append(Some(at(5, 9)), &[at(5, 11)]), Some(&leads)).is_some());
        assert!(append_problem(&append(None, &[at(5, 1)]), Some(&leads)).is_some());
    }

    /// A deposed leader sends nothing: the append fails before the peer is dialled.
    #[tokio::test]
    async fn a_stale_append_is_not_sent() {
        let identity = Arc::new(Identity::generate());
        let (_trust, trust) = watch::channel(Arc::default());
        let bind = Bind { address: (Ipv4Addr::LOCALHOST, 0).into(), identity, trust };
        let (endpoint, _listener) = Endpoint::bind(bind).unwrap();
        let [me, peer] = [1, 2].map(|n| NodeId::from_bytes([n; 32]));
        let (voted, vote) = watch::channel(Some(Vote::new_committed(5, me)));
        let log_watch = LogWatch { flushed: DurableWatch::unlimited(), voted: vote };
        let mut network =
            Network { endpoint, log_watch, unreachable_peers: UnreachablePeers::default() };
        let mut peer_client = network.new_client(peer, &EmptyNode::default()).await;
        let append = || AppendEntriesRequest {
            vote: Vote::new_committed(5, me),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let soon = || RPCOption::new(Duration::from_millis(50));
        let sent = peer_client.append_entries(append(), soon()).await.unwrap_err();
        assert!(matches!(sent, RPCError::Unreachable(_)), "{sent}");
        voted.send_replace(Some(Vote::new(6, peer)));
        let stopped = peer_client.append_entries(append(), soon()).await.unwrap_err();
        assert!(stopped.to_string().contains("no longer leads"), "{stopped}");
    }

    /// While one node was hung, every read wrote a line to the leader's log: openraft creates a
    /// client for each read, and each client assumed that its peer had answered before.
    #[test]
    fn an_unreachable_peer_is_logged_once_over_all_clients() {
        let (one, other) = (UnreachablePeers::default(), NodeId::from_bytes([1; 32]));
        let same = one.clone();
        assert!(!one.record(other, true));
        assert!(one.record(other, false));
        assert!(!same.record(other, false));
        assert!(same.record(other, true));
        assert!(!one.record(other, true));
    }
}
