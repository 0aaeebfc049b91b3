use std::net::Ipv4Addr;
use std::time::UNIX_EPOCH;

use muster_types::{ClusterId, Role};

use super::*;
use crate::identity::Identity;
use crate::inspect::describe;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

fn authority(kind: AuthorityKind) -> Authority {
    Authority::create(kind, "demo", &ClusterId::from_bytes([3; 32]), now())
}

fn node(identity: &Identity, role: Role) -> Profile {
    Profile::Node { id: identity.node_id(), role }
}

fn issue_node(role: Role, now: SystemTime) -> (Identity, Result<Leaf, IssueError>) {
    let identity = Identity::generate();
    let key = identity.public_key().into();
    let leaf = issue(&authority(AuthorityKind::Machine), &node(&identity, role), &key, now);
    (identity, leaf)
}

#[test]
fn a_node_certificate_says_what_peers_check_and_nothing_else() {
    let (identity, leaf) = issue_node(Role::ControlPlane, now());
    let described = describe(&leaf.unwrap().chain[0]).unwrap();
    let names = [
        format!("DNS:{}.nodes.muster.internal", identity.node_id()),
        "DNS:control-plane.muster.internal".to_owned(),
    ];
    assert_eq!(described.alternative_names, names);
    assert_eq!(described.subject, format!("CN={}", identity.node_id()));
    assert_eq!(described.issuer, "O=muster, CN=machine authority");
}

#[test]
fn a_worker_does_not_carry_the_control_plane_name() {
    let (_, leaf) = issue_node(Role::Worker, now());
    let described = describe(&leaf.unwrap().chain[0]).unwrap();
    assert!(!described.alternative_names.iter().any(|name| name.contains("control-plane")));
}

#[test]
fn a_leaf_is_backdated_and_renewed_at_half_of_its_life() {
    let (_, leaf) = issue_node(Role::Worker, now());
    let leaf = leaf.unwrap();
    assert_eq!(leaf.not_before, now() - Duration::from_hours(3));
    assert_eq!(leaf.not_after, now() + Duration::from_hours(24));
    assert_eq!(leaf.renew_at(), now() + Duration::from_hours(12));
    assert_eq!(Leaf::from_chain(leaf.chain.clone()), Ok(leaf));
}

#[test]
fn no_two_leaves_share_a_serial_number() {
    let authority = authority(AuthorityKind::Etcd);
    let profile = Profile::EtcdPeer { name: "cp1".parse().unwrap(), addresses: vec![] };
    let key = KeyPair::generate().public();
    let serial = || {
        let leaf = issue(&authority, &profile, &key, now()).unwrap();
        describe(&leaf.chain[0]).unwrap().serial
    };
    let (one, two) = (serial(), serial());
    assert_ne!(one, two);
    assert_eq!(one.len(), 32);
}

#[test]
fn a_node_certificate_is_issued_only_over_the_nodes_own_key() {
    let (one, two) = (Identity::generate(), Identity::generate());
    let authority = authority(AuthorityKind::Machine);
    for key in [two.public_key().into(), KeyPair::generate().public()] {
        let refused = issue(&authority, &node(&one, Role::Worker), &key, now());
        assert_eq!(refused, Err(IssueError::NodeKeyMismatch { id: one.node_id() }));
    }
}

#[test]
fn a_leaf_comes_only_from_the_authority_of_its_profile() {
    let identity = Identity::generate();
    let profile = node(&identity, Role::Worker);
    let key = identity.public_key().into();
    let refused = issue(&authority(AuthorityKind::Etcd), &profile, &key, now());
    assert!(matches!(refused, Err(IssueError::WrongAuthority { .. })));
}

#[test]
fn a_leaf_lies_within_its_authority() {
    for wrong in [now() - Duration::from_hours(48), now() + Duration::from_hours(10 * 365 * 24)] {
        let (_, leaf) = issue_node(Role::Worker, wrong);
        assert!(matches!(leaf, Err(IssueError::OutsideAuthorityValidity { .. })), "{leaf:?}");
    }
}

#[test]
fn addresses_and_common_names_are_bounded() {
    let authority = authority(AuthorityKind::Etcd);
    let key = KeyPair::generate().public();
    let with = |count: u8| {
        let addresses = (0..count).map(|i| Ipv4Addr::new(192, 0, 2, i).into()).collect();
        let profile = Profile::EtcdServer { name: "cp1".parse().unwrap(), addresses };
        issue(&authority, &profile, &key, now())
    };
    // The loopback addresses come on top.
    assert!(with(16).is_ok());
    assert_eq!(with(17), Err(IssueError::TooManyAddresses { found: 17 }));
    for common_name in [String::new(), "a".repeat(65), "root\n".to_owned()] {
        let profile = Profile::EtcdClient { common_name, lifetime: Duration::from_hours(1) };
        assert_eq!(issue(&authority, &profile, &key, now()), Err(IssueError::CommonName));
    }
}

#[test]
fn the_largest_leaf_fits_what_the_tls_layer_looks_at() {
    let (_, leaf) = issue_node(Role::ControlPlane, now());
    let leaf = leaf.unwrap();
    assert!(leaf.chain[0].len() < identity::MAX_CERTIFICATE / 2, "{}", leaf.chain[0].len());
}
