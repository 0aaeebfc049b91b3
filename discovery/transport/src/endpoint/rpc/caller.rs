//! Caller of a request, stored in the extensions of every request that the endpoint serves.

use std::net::SocketAddr;

use muster_types::{NodeId, PublicKey, Role};
use tonic::Status;

/// Peer of the session that a request came over. Its key was proved in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub node_id: NodeId,
    pub public_key: PublicKey,
    /// Role in the directory. Always present on `muster-node/1`; on `muster-hello/1` only when the
    /// caller is a member.
    pub role: Option<Role>,
    /// Address that its packets come from now.
    pub remote: SocketAddr,
}

impl Caller {
    /// Returns the caller of a request.
    ///
    /// # Errors
    /// INTERNAL when the request did not come through [`crate::endpoint::EndpointTask`].
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get()
            .ok_or_else(|| Status::internal("the request did not come over a node session"))
    }

    /// Accepts control-plane members and rejects every other caller with `PERMISSION_DENIED`.
    pub fn require_control_plane(&self) -> Result<(), Status> {
        match self.role {
            Some(Role::ControlPlane) => Ok(()),
            Some(Role::Worker) | None => {
                Err(Status::permission_denied("only control-plane members may call this"))
            }
        }
    }
}
