//! What a node in its first seconds keeps, as the victim of power cuts writes it and the judge
//! expects it: contents that tell by themselves in which turn they were written.

use anyhow::Result;
use muster_discovery::candidates::Peer;
use muster_proto::wire::hello::{Admitted, Credentials};
use muster_proto::{NodeId, Role};
use musterd::membership::Membership;

/// The cluster that it enters.
pub const CLUSTER: [u8; 32] = [3; 32];

/// Of several sectors, so that it can be torn.
pub fn membership(turn: u64) -> Result<Membership> {
    let certificate = turn.to_be_bytes().repeat(200);
    let answer = Admitted {
        cluster_id: CLUSTER.to_vec(),
        cluster_name: format!("turn-{turn}"),
        credentials: Some(Credentials {
            certificate_chain: vec![certificate.clone()],
            machine_authorities: vec![certificate],
        }),
        peers: Vec::new(),
    };
    Ok(Membership::admitted(&answer, Role::ControlPlane)?)
}

/// As many peers as this is the turn.
pub fn peers(turn: u64) -> Vec<Peer> {
    let peer = |number: u64| Peer {
        id: NodeId::from_bytes([u8::try_from(number % 256).unwrap_or(0); 32]),
        name: format!("peer-{number}").parse().expect("a label"),
        role: Role::Worker,
        addresses: vec![([10, 0, 0, 1], 50000).into()],
    };
    (0..turn).map(peer).collect()
}
