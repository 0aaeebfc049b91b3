use super::*;

fn pinned(authority: &Authority) -> TrustBundle {
    TrustBundle::new(vec![authority.certificate().clone()]).unwrap()
}

fn server(node: &Node, operator: &Identity) -> ServerConfig {
    let known = operator.public_key();
    operator_server_config(node.trust_source(), move |key| *key == known)
}

#[test]
fn an_operator_is_known_by_its_key() {
    let (a, _, authority) = members();
    let operator = Identity::generate();
    let client = operator_client_config(operator.self_signed(now()), &pinned(&authority));
    let session = handshake(client, server(&a, &operator)).unwrap();
    assert_eq!(session.client_key(), operator.public_key());
    assert_eq!(session.server.alpn_protocol(), Some(ALPN_OPERATOR));
}

#[test]
fn an_unknown_key_is_refused() {
    let (a, _, authority) = members();
    let (operator, other) = (Identity::generate(), Identity::generate());
    let client = operator_client_config(other.self_signed(now()), &pinned(&authority));
    let error = refused_by_server(handshake(client, server(&a, &operator)));
    assert_eq!(peer_error(&error), PeerError::NotAnOperator { key: other.public_key() });
}

#[test]
fn an_operators_certificate_without_its_key_is_refused() {
    let (a, _, authority) = members();
    let (operator, thief) = (Identity::generate(), Identity::generate());
    let presented = stolen(&operator.self_signed(now()).cert, &thief);
    let client = operator_client_config(presented, &pinned(&authority));
    refused_by_server(handshake(client, server(&a, &operator)));
}

#[test]
fn a_workers_certificate_is_refused() {
    let (a, _, authority) = members();
    a.certify(&authority, Role::Worker, now());
    let operator = Identity::generate();
    let client = operator_client_config(operator.self_signed(now()), &pinned(&authority));
    let error = refused_by_client(handshake(client, server(&a, &operator)));
    assert_eq!(peer_error(&error), PeerError::NotControlPlane);
}

#[test]
fn a_server_of_another_cluster_is_refused() {
    let (a, _, _) = members();
    let operator = Identity::generate();
    let client = operator_client_config(operator.self_signed(now()), &pinned(&machine_authority()));
    assert!(is_of_another_authority(&refused_by_client(handshake(client, server(&a, &operator)))));
}

#[test]
fn a_self_signed_server_certificate_is_refused() {
    let (a, b, authority) = members();
    let operator = Identity::generate();
    let client = operator_client_config(operator.self_signed(now()), &pinned(&authority));
    let mut fake = server(&a, &operator);
    let presented = rustls::sign::SingleCertAndKey::from(Arc::clone(&b.own));
    fake.cert_resolver = Arc::new(presented);
    refused_by_client(handshake(client, fake));
}

#[test]
fn a_node_without_credentials_serves_no_operator() {
    let (a, _) = founders();
    let operator = Identity::generate();
    let client = operator_client_config(operator.self_signed(now()), &pinned(&machine_authority()));
    refused_by_server(handshake(client, server(&a, &operator)));
}
