use super::*;

#[test]
fn a_member_is_accepted() {
    let (a, b, _) = members();
    let session = handshake(a.client_config(&b), b.server()).unwrap();
    assert_eq!(node_id(&session.client_key()), a.id());
    assert_eq!(node_id(&session.server_key()), b.id());
    assert_eq!(session.server.alpn_protocol(), Some(ALPN_NODE));
}

#[test]
fn a_non_member_is_refused_even_with_a_good_certificate() {
    let (a, b, _) = members();
    b.set_members(&[&b]);
    let error = refused_by_server(handshake(a.client_config(&b), b.server()));
    assert_eq!(peer_error(&error), PeerError::NotAMember { id: a.id() });
    let error = refused_by_client(handshake(b.client_config(&a), a.server()));
    assert_eq!(peer_error(&error), PeerError::NotAMember { id: a.id() });
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let authority_born = now() - Duration::from_hours(100);
    let cluster = ClusterId::from_bytes([3; 32]);
    let authority = Authority::create(AuthorityKind::Machine, "demo", &cluster, authority_born);
    let (a, b) = founders();
    a.certify(&authority, Role::ControlPlane, now() - Duration::from_hours(25));
    b.certify(&authority, Role::ControlPlane, now());
    assert!(is_expired(&refused_by_server(handshake(a.client_config(&b), b.server()))));
    assert!(is_expired(&refused_by_client(handshake(b.client_config(&a), a.server()))));
}

#[test]
fn a_certificate_from_a_clock_two_hours_ahead_is_good_and_one_from_four_is_not_yet() {
    let (a, b, authority) = members();
    a.certify(&authority, Role::Worker, now() + Duration::from_hours(2));
    handshake(a.client_config(&b), b.server()).unwrap();
    a.certify(&authority, Role::Worker, now() + Duration::from_hours(4));
    let error = refused_by_server(handshake(a.client_config(&b), b.server()));
    assert!(error.to_string().contains("not valid yet"), "{error}");
}

#[test]
fn a_certificate_of_another_cluster_is_refused_on_both_sides() {
    let (a, b, _) = members();
    a.certify(&machine_authority(), Role::ControlPlane, now());
    assert!(is_of_another_authority(&refused_by_client(handshake(
        a.client_config(&b),
        b.server()
    ))));
    assert!(is_of_another_authority(&refused_by_client(handshake(
        b.client_config(&a),
        a.server()
    ))));
    // A client that does not verify the server shows the server's rejection.
    let mut unverifying = hello_client_config(a.trust.credentials().unwrap().certified());
    unverifying.alpn_protocols = vec![ALPN_NODE.to_vec()];
    assert!(is_of_another_authority(&refused_by_server(handshake(unverifying, b.server()))));
}

#[test]
fn a_dialer_that_expects_another_node_refuses() {
    let (a, b, authority) = members();
    let c = Node::new();
    c.certify(&authority, Role::ControlPlane, now());
    for node in [&a, &b, &c] {
        node.set_members(&[&a, &b, &c]);
    }
    let error = refused_by_client(handshake(a.client_config(&b), c.server()));
    assert_eq!(peer_error(&error), PeerError::UnexpectedNode { expected: b.id(), found: c.id() });
}

#[test]
fn at_genesis_a_self_signed_certificate_of_a_member_is_enough() {
    let (a, b) = founders();
    let session = handshake(a.client_config(&b), b.server()).unwrap();
    assert_eq!(node_id(&session.client_key()), a.id());
}

#[test]
fn at_genesis_a_non_member_is_refused() {
    let (a, b) = founders();
    b.set_members(&[&b]);
    let error = refused_by_server(handshake(a.client_config(&b), b.server()));
    assert_eq!(peer_error(&error), PeerError::NotAMember { id: a.id() });
    let error = refused_by_client(handshake(b.client_config(&a), a.server()));
    assert_eq!(peer_error(&error), PeerError::NotAMember { id: a.id() });
}

#[test]
fn genesis_ends_when_a_bundle_exists() {
    let (a, b) = founders();
    b.certify(&machine_authority(), Role::ControlPlane, now());
    // `a` is still at genesis and checks only the key of `b`, in any certificate. `b` now verifies
    // with its authorities.
    assert!(is_of_another_authority(&refused_by_server(handshake(
        a.client_config(&b),
        b.server()
    ))));
    assert!(is_of_another_authority(&refused_by_client(handshake(
        b.client_config(&a),
        a.server()
    ))));
}

#[test]
fn a_renewed_certificate_is_presented_at_the_next_handshake() {
    let (a, b, authority) = members();
    let first = handshake(a.client_config(&b), b.server()).unwrap();
    b.certify(&authority, Role::ControlPlane, now());
    let second = handshake(a.client_config(&b), b.server()).unwrap();
    let shown = |session: &Established| session.client.peer_certificates().unwrap().to_vec();
    assert_ne!(shown(&first), shown(&second));
    assert_eq!(shown(&second), b.trust.credentials().unwrap().chain());
}

#[test]
fn both_authorities_are_good_while_one_replaces_the_other() {
    let (a, b) = founders();
    // Same cluster, so both have the same name.
    let cluster = ClusterId::from_bytes([3; 32]);
    let (old, new) = (machine_authority_of(&cluster), machine_authority_of(&cluster));
    let both =
        TrustBundle::new(vec![old.certificate().clone(), new.certificate().clone()]).unwrap();
    for (node, authority) in [(&a, &old), (&b, &new)] {
        node.certify(authority, Role::ControlPlane, now());
        let chain = node.trust.credentials().unwrap().chain().to_vec();
        let credentials = Credentials::new(&node.identity, chain, both.clone()).unwrap();
        node.trust.0.lock().unwrap().credentials = Some(Arc::new(credentials));
    }
    handshake(a.client_config(&b), b.server()).unwrap();
    handshake(b.client_config(&a), a.server()).unwrap();
}

#[test]
fn a_members_certificate_without_its_key_is_refused_on_both_sides() {
    let (a, b, _) = members();
    let thief = Identity::generate();
    let chain = |node: &Node| node.trust.credentials().unwrap().chain().to_vec();
    let mut client = a.client_config(&b);
    let presented = rustls::sign::SingleCertAndKey::from(stolen(&chain(&a), &thief));
    client.client_auth_cert_resolver = Arc::new(presented);
    refused_by_server(handshake(client, b.server()));
    let mut server = b.server();
    let presented = rustls::sign::SingleCertAndKey::from(stolen(&chain(&b), &thief));
    server.cert_resolver = Arc::new(presented);
    refused_by_client(handshake(a.client_config(&b), server));
}

#[test]
fn a_certificate_that_names_another_node_is_refused() {
    let (a, b, authority) = members();
    let params = {
        let mut params = rcgen::CertificateParams::new(vec![leaf::node_dns_name(&b.id())]).unwrap();
        params.use_authority_key_identifier_extension = true;
        params
    };
    let key = PrivateKey::from_pkcs8(Algorithm::Ed25519, &a.identity.to_pkcs8()).unwrap();
    let forged = params.signed_by(&key.signer(), &authority.issuer()).unwrap();
    let bundle = TrustBundle::new(vec![authority.certificate().clone()]).unwrap();
    let credentials = Credentials::new(&a.identity, vec![forged.into()], bundle).unwrap();
    a.trust.0.lock().unwrap().credentials = Some(Arc::new(credentials));
    let error = refused_by_server(handshake(a.client_config(&b), b.server()));
    assert_eq!(peer_error(&error), PeerError::NameMismatch { id: a.id() });
}

#[test]
fn an_existing_session_can_be_authenticated_again() {
    let (a, b, _) = members();
    let session = handshake(a.client_config(&b), b.server()).unwrap();
    let chain = session.server.peer_certificates().unwrap();
    let now = UnixTime::since_unix_epoch(now().duration_since(std::time::UNIX_EPOCH).unwrap());
    let authenticated = |at| authenticate(chain, PeerSide::Client, &*b.trust, at);
    assert_eq!(authenticated(now), Ok(a.identity.public_key()));
    let tomorrow =
        UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + leaf::NODE_LIFETIME * 2);
    assert!(matches!(authenticated(tomorrow), Err(PeerError::Chain(_))));
    b.set_members(&[&b]);
    assert_eq!(authenticated(now), Err(PeerError::NotAMember { id: a.id() }));
    assert!(authenticate(&[], PeerSide::Client, &*b.trust, now).is_err());
}

#[test]
fn credentials_are_only_made_of_a_certificate_of_ones_own() {
    let (a, b, authority) = members();
    let chain = a.trust.credentials().unwrap().chain().to_vec();
    let bundle = TrustBundle::new(vec![authority.certificate().clone()]).unwrap();
    let wrong = Credentials::new(&b.identity, chain, bundle.clone());
    assert_eq!(wrong.unwrap_err(), CredentialsError::KeyMismatch);
    let none = Credentials::new(&b.identity, vec![], bundle);
    assert_eq!(none.unwrap_err(), CredentialsError::Empty);
}
