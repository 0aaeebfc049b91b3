//! Encoded samples of the remembered peers. See `muster_compat`.

use muster_compat::{check, with_new_fields_json};

use super::*;

#[test]
fn peers_are_read_as_they_were_written() {
    let peer = |n: u8, role, addresses: &[&str]| RememberedPeer {
        id: NodeId::from_bytes([n; 32]),
        name: format!("node-{n}").parse().unwrap(),
        role,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let peers = vec![
        peer(1, Role::ControlPlane, &["192.0.2.1:50000", "[2001:db8::1]:50000"]),
        peer(2, Role::Worker, &[]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.json");
    let sample = check("sources/peers.json", &encode(&peers).unwrap());
    let extended = with_new_fields_json(&sample, &[]);
    for file in [sample, extended] {
        fs::write(&path, file).unwrap();
        assert_eq!(read(&path).unwrap(), peers);
    }
    fs::write(&path, br#"{"format": 2, "peers": "elsewhere"}"#).unwrap();
    let (peers, error) = load(&path);
    assert!(peers.is_empty() && matches!(error, Some(ReadError::Newer { .. })), "{error:?}");
    assert!(path.exists(), "it was set aside");
}
