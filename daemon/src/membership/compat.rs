//! Encoded samples of the membership file. See `muster_compat`.

use std::fs;

use muster_compat::{check, with_new_fields_json};

use super::*;

fn membership() -> Membership {
    let peer = KnownPeer {
        public_key: PublicKey::from_bytes([1; 32]),
        name: "cp-1".parse().unwrap(),
        role: Role::ControlPlane,
        addresses: vec!["192.0.2.1:50000".parse().unwrap(), "[2001:db8::1]:50000".parse().unwrap()],
    };
    Membership {
        format: FORMAT,
        cluster_id: ClusterId::from_bytes([7; 32]),
        cluster_name: "demo".to_owned(),
        role: Role::Worker,
        token_id: Some("foundingaa".parse().unwrap()),
        chain: vec![Base64(vec![0x30, 0])],
        authorities: vec![Base64(vec![0x30, 1, 2])],
        peers: [(identity::node_id(&peer.public_key), peer)].into(),
    }
}

#[test]
fn a_membership_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("membership.json");
    membership().save(&path).unwrap();
    let sample = check("daemon/membership.json", &fs::read(&path).unwrap());
    let extended = seal(&with_new_fields_json(&unseal(&sample).unwrap(), &["peers"]));
    assert_ne!(extended, sample);
    for file in [sample, extended] {
        fs::write(&path, file).unwrap();
        assert_eq!(Membership::load(&path).unwrap(), Some(membership()));
    }
}

/// Advice to re-initialise the node would cost it its membership for nothing.
#[test]
fn a_membership_of_a_newer_format_is_not_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("membership.json");
    fs::write(&path, seal(br#"{"format":2,"everythingElse":"differs"}"#)).unwrap();
    let error = Membership::load(&path).unwrap_err();
    assert!(matches!(error, MembershipError::Newer { .. }), "{error}");
    assert!(!error.to_string().contains("re-initialised"), "{error}");
}
