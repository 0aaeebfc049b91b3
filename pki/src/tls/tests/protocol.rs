use super::*;

#[test]
fn a_stranger_with_a_hello_key_does_not_get_into_the_node_protocol() {
    let (_, b, _) = members();
    let mut client = hello_client_config(Node::new().own);
    client.alpn_protocols = vec![ALPN_NODE.to_vec()];
    refused_by_server(handshake(client, b.server()));
}

#[test]
fn a_client_must_offer_exactly_one_known_protocol() {
    let (a, b) = founders();
    let offers: [&[&[u8]]; 4] = [&[], &[ALPN_HELLO, ALPN_NODE], &[ALPN_NODE, ALPN_HELLO], &[b"h3"]];
    for offered in offers {
        let mut client = hello_client_config(Arc::clone(&a.own));
        client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        refused_by_server(handshake(client, b.server()));
    }
}

#[test]
fn a_configuration_used_twice_refuses_the_other_protocol() {
    let (a, b) = founders();
    let server = Arc::new(b.server());
    let hello = Arc::new(hello_client_config(Arc::clone(&a.own)));
    handshake_with(hello, Arc::clone(&server)).unwrap();
    refused_by_server(handshake_with(Arc::new(a.client_config(&b)), server));
}

#[test]
fn a_second_session_is_a_full_handshake_again() {
    let (a, b, _) = members();
    let (client, server) = (Arc::new(a.client_config(&b)), Arc::new(b.server()));
    for _ in 0..2 {
        let session = handshake_with(Arc::clone(&client), Arc::clone(&server)).unwrap();
        assert_eq!(session.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn two_sessions_have_two_exporters() {
    let (a, b) = founders();
    let exporter = || handshake(a.client_config(&b), b.server()).unwrap().exporters().0;
    assert_ne!(exporter(), exporter());
}
