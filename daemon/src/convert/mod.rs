//! Conversions between the endpoint's directory and messages. Malformed entries are skipped: one
//! bad entry must not hide the others.

#[cfg(test)]
mod fuzz;

use muster_messages::hello::{Hint, NodeRole, Peer as WirePeer};
use muster_pki::identity;
use muster_transport::endpoint::{Directory, Peer, Trust};
use muster_types::address::{address_strings, parse_addresses};
use muster_types::{NodeId, PublicKey};

/// Converts the members of a message to a directory.
pub fn directory(peers: &[WirePeer]) -> Directory {
    let peers = peers.iter().filter_map(parse_peer);
    peers.map(|peer| (identity::node_id(&peer.public_key), peer)).collect()
}

fn parse_peer(message: &WirePeer) -> Option<Peer> {
    Some(Peer {
        public_key: PublicKey::try_from(message.public_key.as_slice()).ok()?,
        name: message.name.parse().ok()?,
        role: NodeRole::role_of(message.role)?,
        addresses: parse_addresses(&message.addresses),
    })
}

/// Converts a directory to messages.
pub fn peers(directory: &Directory) -> Vec<WirePeer> {
    let peer = |peer: &Peer| WirePeer {
        public_key: peer.public_key.to_vec(),
        name: peer.name.to_string(),
        role: NodeRole::from(peer.role).into(),
        addresses: address_strings(&peer.addresses),
    };
    directory.values().map(peer).collect()
}

/// Returns the control-plane members as hints, for a peer that called the wrong node.
pub fn control_plane_hints(trust: &Trust) -> Vec<Hint> {
    let hint = |(id, peer): (&NodeId, &Peer)| Hint {
        node_id: id.to_vec(),
        addresses: address_strings(&peer.addresses),
        reachable: false,
    };
    trust.control_plane().map(hint).collect()
}
