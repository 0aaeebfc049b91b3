use super::*;

#[test]
fn strangers_learn_each_others_key_and_share_an_exporter() {
    let (a, b) = (Node::new(), Node::new());
    let session = handshake(hello_client_config(Arc::clone(&a.own)), b.server()).unwrap();
    assert_eq!(session.client_key(), a.identity.public_key());
    assert_eq!(session.server_key(), b.identity.public_key());
    let (client, server) = session.exporters();
    assert_eq!(client, server);
    assert_eq!(session.server.alpn_protocol(), Some(ALPN_HELLO));
}

#[test]
fn a_member_presents_its_own_certificate_and_not_the_clusters() {
    let (a, b, _) = members();
    let stranger = Node::new();
    let session = handshake(hello_client_config(Arc::clone(&stranger.own)), b.server()).unwrap();
    let shown = session.client.peer_certificates().unwrap();
    assert_eq!(shown, &b.own.cert[..]);
    // A member with an expired certificate also uses this protocol.
    handshake(hello_client_config(Arc::clone(&a.own)), b.server()).unwrap();
}

#[test]
fn a_proof_relayed_through_a_man_in_the_middle_fails() {
    let token = Token::generate();
    let (a, b, middle) = (Node::new(), Node::new(), Node::new());
    let left = handshake(hello_client_config(Arc::clone(&a.own)), middle.server()).unwrap();
    let right = handshake(hello_client_config(Arc::clone(&middle.own)), b.server()).unwrap();
    let transcript = |session: &Established, exporter| Transcript {
        exporter,
        dialer: session.client_key(),
        listener: session.server_key(),
        token: token.id().clone(),
    };
    let seen_by_a = transcript(&left, left.exporters().0);
    let seen_by_b = transcript(&right, right.exporters().1);
    let proof = token.verifier().prove(Side::Dialer, &seen_by_a);
    assert!(!token.verifier().check(Side::Dialer, &seen_by_b, &proof));
    // The relay fails even if the keys are equal.
    let same_keys = Transcript { exporter: seen_by_b.exporter, ..seen_by_a.clone() };
    assert!(!token.verifier().check(Side::Dialer, &same_keys, &proof));
    assert!(token.verifier().check(Side::Dialer, &seen_by_a, &proof));
}

#[test]
fn a_certificate_without_its_key_is_refused_on_both_sides() {
    let (a, b, thief) = (Node::new(), Node::new(), Identity::generate());
    let result = handshake(hello_client_config(stolen(&a.own.cert, &thief)), b.server());
    assert!(matches!(refused_by_server(result), Error::InvalidCertificate(_)));
    let fake = quic_server_config(&stolen(&b.own.cert, &thief), &b.trust_source());
    let result = handshake(hello_client_config(a.own), fake);
    assert!(matches!(refused_by_client(result), Error::InvalidCertificate(_)));
}

#[test]
fn a_key_that_is_not_ed25519_is_refused() {
    let server = Node::new();
    let key = PrivateKey::generate(Algorithm::P256);
    let certificate = rcgen::CertificateParams::default().self_signed(&key.signer()).unwrap();
    let pkcs8 = rustls::pki_types::PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signing = rustls::crypto::ring::sign::any_ecdsa_type(&pkcs8.into()).unwrap();
    let own = Arc::new(CertifiedKey::new(vec![certificate.into()], signing));
    refused_by_server(handshake(hello_client_config(own), server.server()));
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let server = Node::new();
    let mut config = hello_client_config(Arc::clone(&server.own));
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let error = refused_by_server(handshake(config, server.server()));
    assert_eq!(error, Error::NoCertificatesPresented);
}

#[test]
fn long_chains_and_large_certificates_are_refused_unread() {
    let (a, b) = (Node::new(), Node::new());
    let leaf = a.own.cert[0].clone();
    let long = a.identity.certified(vec![leaf.clone(); MAX_CHAIN + 1]);
    let error = refused_by_server(handshake(hello_client_config(long), b.server()));
    assert_eq!(peer_error(&error), PeerError::ChainLength { found: MAX_CHAIN + 1 });
    let large = a.identity.certified(vec![leaf, vec![0; 5000].into()]);
    let error = refused_by_server(handshake(hello_client_config(large), b.server()));
    assert_eq!(peer_error(&error), PeerError::CertificateSize { found: 5000 });
}
