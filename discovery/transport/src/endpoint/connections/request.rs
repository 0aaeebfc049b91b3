//! Requests of the endpoint's handles to its task. They carry no replies but the state to watch.

use bytes::Bytes;
use muster_types::NodeId;
use tokio::sync::{oneshot, watch};

use super::peer::PeerConnectionState;

/// Requests to the endpoint's task.
#[derive(Debug)]
pub(crate) enum EndpointRequest {
    Subscribe { peer: NodeId, reply: oneshot::Sender<watch::Receiver<PeerConnectionState>> },
    Connect { peer: NodeId },
    Datagram { peer: NodeId, datagram: Bytes, is_optional: bool },
}
