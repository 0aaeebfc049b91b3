//! Result of a finished TLS handshake. The verifiers of pki have checked it already.

use muster_pki::identity::{node_id, public_key_of};
use muster_pki::proof::EXPORTER_LABEL;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use muster_types::{NodeId, PublicKey};
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;

/// Peer of a connection, as its certificate names it.
#[derive(Debug, Clone)]
pub(crate) struct PeerKey {
    pub(crate) node_id: NodeId,
    pub(crate) public_key: PublicKey,
}

/// Protocol of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    Hello,
    Node,
}

/// A finished handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) connection: quinn::Connection,
    pub(crate) alpn: Alpn,
    pub(crate) peer: PeerKey,
}

impl Handshake {
    /// Reads the result of the TLS handshake. The verifiers have checked it already.
    pub(crate) fn of(connection: quinn::Connection) -> Result<Self, String> {
        let data = connection.handshake_data().and_then(|data| data.downcast().ok());
        let protocol = data.and_then(|data: Box<HandshakeData>| data.protocol);
        let alpn = match protocol.as_deref() {
            Some(ALPN_HELLO) => Alpn::Hello,
            Some(ALPN_NODE) => Alpn::Node,
            Some(_) | None => return Err("no common protocol".to_owned()),
        };
        let chain = connection.peer_identity().and_then(|peer| peer.downcast().ok());
        let leaf =
            chain.and_then(|chain: Box<Vec<CertificateDer<'static>>>| chain.first().cloned());
        let leaf = leaf.ok_or("the peer presented no certificate")?;
        let public_key = public_key_of(&leaf).map_err(|e| e.to_string())?;
        let peer = PeerKey { node_id: node_id(&public_key), public_key };
        Ok(Self { connection, alpn, peer })
    }
}

/// Returns the session's keying material for the token proof.
pub(crate) fn exporter(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").ok()?;
    Some(exporter)
}
