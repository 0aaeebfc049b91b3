//! Handle to the Raft group on a control-plane node. It holds the parts that the calls share; the
//! calls are in `client` (propose, read), `membership`, `health` and `receive` (Raft's messages).

use std::sync::Arc;

use muster_state::ClusterState;
use muster_transport::endpoint::Endpoint;
use muster_types::NodeId;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::quorum_watch::WatchChannels;
use super::types::{Metrics, Raft};

/// Handle to the Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) me: NodeId,
    pub(super) raft: Raft,
    pub(super) endpoint: Endpoint,
    state: watch::Receiver<Arc<ClusterState>>,
    pub(super) channels: WatchChannels,
    /// Time of the last append from a leader. openraft drops a silent leader only where it may
    /// elect another, so a learner would keep it indefinitely.
    pub(super) last_append: Arc<watch::Sender<Option<Instant>>>,
    /// Held on this node while Raft's membership changes.
    pub(super) membership_lock: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Group {
    pub(super) fn new(
        me: NodeId,
        raft: Raft,
        endpoint: Endpoint,
        state: watch::Receiver<Arc<ClusterState>>,
        channels: WatchChannels,
    ) -> Self {
        let (last_append, membership_lock) = (Arc::default(), Arc::default());
        Self { me, raft, endpoint, state, channels, last_append, membership_lock }
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    /// The state that this node has applied. It may be behind the leader: call [`Self::catch_up`]
    /// first if a decision depends on it.
    pub fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.state.borrow())
    }

    /// A watch of the state that changes with every applied command.
    pub(crate) fn watch_state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.clone()
    }

    pub fn metrics(&self) -> watch::Receiver<Metrics> {
        self.raft.metrics()
    }
}
