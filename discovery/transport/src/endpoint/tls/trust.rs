//! Credentials and directory of this node, as one value in a watch. The daemon publishes it. The
//! endpoint reads it at every handshake and call, and ends the sessions of removed members.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use muster_pki::tls::{Credentials, TrustSource};
use muster_types::{NodeId, NodeName, PublicKey, Role};
use tokio::sync::watch;

/// Members by node id: the registry of the Raft group in the form that sessions need.
pub type Directory = BTreeMap<NodeId, Peer>;

/// Credentials and directory. Replaced as a whole; a running session continues unless its peer left
/// the directory.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// This node's certificate. None before the cluster exists and at genesis. Peers in the
    /// directory are then authenticated by their identity key alone.
    pub credentials: Option<Arc<Credentials>>,
    /// Members that may open a `muster-node/1` session, with their addresses.
    pub directory: Directory,
}

impl Trust {
    /// Returns the control-plane members.
    pub fn control_plane(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.directory.iter().filter(|(_, peer)| peer.role == Role::ControlPlane)
    }
}

/// Source of trust for the TLS verifiers: always the newest value of the watch.
#[derive(Debug, Clone)]
pub struct WatchedTrust(pub watch::Receiver<Arc<Trust>>);

impl TrustSource for WatchedTrust {
    fn is_member(&self, node: &NodeId) -> bool {
        self.0.borrow().directory.contains_key(node)
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.borrow().credentials.clone()
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    /// Addresses to dial, best first.
    pub addresses: Vec<SocketAddr>,
}
