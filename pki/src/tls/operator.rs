//! TLS of the operator API. Clients have keys, as in SSH. The server presents the certificate of a
//! control-plane node, verified by the authorities that the operator pinned at first contact.

use std::fmt;
use std::sync::Arc;

use muster_types::PublicKey;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::authentication::{TrustSource, check_server, is_named};
use super::client::client_config;
use super::server::server_config;
use super::verifier::{CertVerifier, PeerError};
use crate::bundle::TrustBundle;
use crate::identity::public_key_of;
use crate::leaf::CONTROL_PLANE_NAME;

/// ALPN of the operator API: gRPC is HTTP/2.
pub const ALPN_OPERATOR: &[u8] = b"h2";

/// Server configuration: accepts clients that prove a key which `is_operator` accepts, and presents
/// this node's certificate; both are evaluated at each handshake. Without credentials every
/// handshake fails. One configuration serves all connections.
pub fn operator_server_config(
    trust_source: Arc<dyn TrustSource>,
    is_operator: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
) -> ServerConfig {
    let verifier = CertVerifier::new(move |presented, _| {
        let key = public_key_of(presented.leaf)?;
        if is_operator(&key) { Ok(()) } else { Err(PeerError::NotAnOperator { key }) }
    });
    let mut config = server_config(verifier, Arc::new(NodeCertResolver(trust_source)));
    config.alpn_protocols = vec![ALPN_OPERATOR.to_vec()];
    config
}

/// Client configuration: presents `own` (self-signed with the operator's key), accepts
/// control-plane nodes under the pinned authorities. The dialled name or address is not checked.
pub fn operator_client_config(own: Arc<CertifiedKey>, pinned: &TrustBundle) -> ClientConfig {
    let roots = pinned.roots();
    let verifier = CertVerifier::new(move |presented, now| {
        public_key_of(presented.leaf)?;
        check_server(presented, &roots, now)?;
        if is_named(presented.leaf, CONTROL_PLANE_NAME.to_owned())? {
            Ok(())
        } else {
            Err(PeerError::NotControlPlane)
        }
    });
    client_config(verifier, own, ALPN_OPERATOR)
}

struct NodeCertResolver(Arc<dyn TrustSource>);

impl fmt::Debug for NodeCertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCertResolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for NodeCertResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.credentials().map(|credentials| credentials.certified())
    }
}
