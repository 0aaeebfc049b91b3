//! Fuzz target for the cluster view that a worker receives. See `muster_fuzz`.

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::Peer;
use muster_messages::node::ClusterView;
use prost::Message as _;

use super::{directory, peers};

fn peer(number: u8) -> Peer {
    Peer {
        public_key: vec![number; 32],
        name: format!("cp-{number}"),
        role: muster_messages::hello::NodeRole::ControlPlane.into(),
        addresses: vec!["192.0.2.1:50000".to_owned()],
    }
}

/// Bad entries are skipped, good ones stay.
#[test]
fn view() {
    let view = ClusterView {
        index: 7,
        cluster_id: vec![9; 32],
        cluster_name: "demo".to_owned(),
        members: vec![peer(1), peer(2)],
        machine_authorities: vec![vec![0x30, 0]],
        config_version: 1,
        removed: vec![vec![3; 32]],
        token_ids: vec!["abcdefghij".to_owned()],
    };
    target("view").seed(view.encode_to_vec()).memory(256 << 10, 128).run(|bytes| {
        let view = match ClusterView::decode(bytes) {
            Ok(view) => view,
            Err(error) => return refused(error),
        };
        let known = directory(&view.members);
        assert!(known.len() <= view.members.len());
        for (id, peer) in &known {
            assert_eq!(*id, muster_pki::identity::node_id(&peer.public_key));
            assert!(peer.addresses.len() <= 16, "{peer:?}");
        }
        assert_eq!(directory(&peers(&known)), known);
        Verdict::Accepted
    });
}
