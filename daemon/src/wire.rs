//! Between the endpoint's directory and messages. What is malformed is left out: a peer that cannot
//! be named or dialled is of no use, and one bad entry must not hide the others.

use muster_messages::hello::{Hint, Peer as WirePeer};
use muster_pki::identity;
use muster_transport::endpoint::{Directory, Peer};
use muster_types::address::{address_texts, parse_addresses};
use muster_types::{PublicKey, Role};

/// The members that a message names.
pub fn directory(peers: &[WirePeer]) -> Directory {
    let peers = peers.iter().filter_map(peer);
    peers.map(|peer| (identity::node_id(&peer.public_key), peer)).collect()
}

fn peer(message: &WirePeer) -> Option<Peer> {
    Some(Peer {
        public_key: PublicKey::try_from(message.public_key.as_slice()).ok()?,
        name: message.name.parse().ok()?,
        role: message.role.parse().ok()?,
        addresses: parse_addresses(&message.addresses),
    })
}

/// A directory as a message.
pub fn peers(directory: &Directory) -> Vec<WirePeer> {
    let peer = |peer: &Peer| WirePeer {
        public_key: peer.public_key.to_vec(),
        name: peer.name.to_string(),
        role: peer.role.to_string(),
        addresses: address_texts(&peer.addresses),
    };
    directory.values().map(peer).collect()
}

/// The control-plane members as hints, for those who asked the wrong node.
pub fn control_plane_hints(directory: &Directory) -> Vec<Hint> {
    let hint = |(id, peer): (&muster_types::NodeId, &Peer)| Hint {
        node_id: id.to_vec(),
        addresses: address_texts(&peer.addresses),
        reachable: false,
    };
    directory.iter().filter(|(_, peer)| peer.role == Role::ControlPlane).map(hint).collect()
}
