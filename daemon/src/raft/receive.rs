//! Raft's messages from other nodes: decodes them, passes them to openraft, encodes its answers. The
//! node API bounds them and checks the sender.

use bytes::Bytes;
use muster_storage::SnapshotBody;
use muster_types::NodeId;
use openraft::error::Fatal;
use openraft::raft::SnapshotResponse;
use tonic::Status;

use super::codec::{SnapshotHeader, decode, encode};
use super::group::Group;
use super::types::Snapshot;

impl Group {
    /// Receives an append, or a heartbeat.
    pub(crate) async fn receive_append(&self, message: &[u8]) -> Result<Vec<u8>, Status> {
        let append = decode(message, "append")?;
        self.on_append();
        Ok(encode(&self.raft.append_entries(append).await))
    }

    /// Receives a candidate's request for this node's vote.
    pub(crate) async fn receive_vote_request(&self, message: &[u8]) -> Result<Vec<u8>, Status> {
        let request = decode(message, "vote request")?;
        Ok(encode(&self.raft.vote(request).await))
    }

    /// The answer to a snapshot of a deposed leader. Raft would reject the snapshot too, but only
    /// after the transfer.
    pub(crate) fn reject_snapshot(&self, header: &SnapshotHeader) -> Option<Vec<u8>> {
        let known = self.raft.metrics().borrow().vote;
        if header.vote >= known {
            return None;
        }
        Some(encode(&Ok::<_, Fatal<NodeId>>(SnapshotResponse::new(known))))
    }

    /// Installs a snapshot.
    pub(crate) async fn receive_snapshot(&self, header: SnapshotHeader, body: Bytes) -> Vec<u8> {
        let SnapshotHeader { vote, meta } = header;
        let snapshot = Snapshot { meta, snapshot: Box::new(SnapshotBody(body)) };
        encode(&self.raft.install_full_snapshot(vote, snapshot).await)
    }
}
