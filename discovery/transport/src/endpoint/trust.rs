//! What this node believes about the others, as one value in a watch. The daemon publishes it; the
//! endpoint reads it at every handshake and at every call, and ends the sessions of who left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use muster_pki::tls::Credentials;
use muster_types::{NodeId, NodeName, PublicKey, Role};

/// The members, by node id. The registry of the Raft group in the form that a session needs.
pub type Directory = BTreeMap<NodeId, Peer>;

/// Whom to believe. Replaced as a whole; running sessions go on unless their peer left the
/// directory.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// This node's certificate. Absent before there is a cluster, and at genesis: then peers of the
    /// directory are believed by their identity key alone.
    pub credentials: Option<Arc<Credentials>>,
    /// Who may open a `muster-node/1` session, and where to dial them.
    pub directory: Directory,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    /// Where to dial it, best first.
    pub addresses: Vec<SocketAddr>,
}
