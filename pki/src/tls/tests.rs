//! Handshakes of rustls with rustls in memory, without sockets.

mod hello;
mod node;
mod operator;
mod protocol;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use muster_types::{ClusterId, NodeId, PublicKey, Role};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
};

use super::*;
use crate::authority::{Authority, AuthorityKind};
use crate::bundle::TrustBundle;
use crate::identity::{Identity, node_id, public_key_of};
use crate::key::{Algorithm, PrivateKey};
use crate::leaf::{self, KeyPair, Profile};
use crate::proof::{EXPORTER_LABEL, Side, Transcript};
use crate::token::Token;

#[expect(clippy::disallowed_methods, reason = "rustls uses the real clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Machine authority of a new cluster.
fn machine_authority() -> Authority {
    machine_authority_of(&ClusterId::from_bytes(*Identity::generate().node_id().as_bytes()))
}

fn machine_authority_of(cluster: &ClusterId) -> Authority {
    Authority::create(AuthorityKind::Machine, "demo", cluster, now())
}

/// Current state of one node.
#[derive(Default)]
struct State {
    members: BTreeSet<NodeId>,
    credentials: Option<Arc<Credentials>>,
}

#[derive(Default)]
struct TestTrust(Mutex<State>);

impl TrustSource for TestTrust {
    fn is_member(&self, node: &NodeId) -> bool {
        self.0.lock().unwrap().members.contains(node)
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.0.lock().unwrap().credentials.clone()
    }
}

struct Node {
    identity: Identity,
    own: Arc<CertifiedKey>,
    trust: Arc<TestTrust>,
}

impl Node {
    fn new() -> Self {
        let identity = Identity::generate();
        let own = identity.self_signed(now());
        Self { identity, own, trust: Arc::default() }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn trust_source(&self) -> Arc<dyn TrustSource> {
        Arc::clone(&self.trust) as _
    }

    fn set_members(&self, members: &[&Node]) {
        self.trust.0.lock().unwrap().members = members.iter().map(|node| node.id()).collect();
    }

    fn certify(&self, authority: &Authority, role: Role, issued: SystemTime) {
        let profile = Profile::Node { id: self.id(), role };
        let key = self.identity.public_key().into();
        let leaf = leaf::issue(authority, &profile, &key, issued).unwrap();
        let bundle = TrustBundle::new(vec![authority.certificate().clone()]).unwrap();
        let credentials = Credentials::new(&self.identity, leaf.chain, bundle).unwrap();
        self.trust.0.lock().unwrap().credentials = Some(Arc::new(credentials));
    }

    fn server(&self) -> ServerConfig {
        quic_server_config(&self.own, &self.trust_source())
    }

    fn client_config(&self, expected: &Node) -> ClientConfig {
        node_client_config(&self.own, &self.trust_source(), expected.id())
    }
}

/// Two members of one cluster that know each other and have certificates.
fn members() -> (Node, Node, Authority) {
    let (a, b, authority) = (Node::new(), Node::new(), machine_authority());
    for node in [&a, &b] {
        node.set_members(&[&a, &b]);
        node.certify(&authority, Role::ControlPlane, now());
    }
    (a, b, authority)
}

/// Two founders that know each other from the birth certificate and have no certificates yet.
fn founders() -> (Node, Node) {
    let (a, b) = (Node::new(), Node::new());
    for node in [&a, &b] {
        node.set_members(&[&a, &b]);
    }
    (a, b)
}

#[derive(Debug)]
struct Established {
    client: ClientConnection,
    server: ServerConnection,
}

impl Established {
    fn exporters(&self) -> ([u8; 32], [u8; 32]) {
        let client = self.client.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
        let server = self.server.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]));
        (client.unwrap(), server.unwrap())
    }

    fn client_key(&self) -> PublicKey {
        public_key_of(&self.server.peer_certificates().unwrap()[0]).unwrap()
    }

    fn server_key(&self) -> PublicKey {
        public_key_of(&self.client.peer_certificates().unwrap()[0]).unwrap()
    }
}

/// Side that rejected the handshake, with its error.
#[derive(Debug)]
enum HandshakeError {
    ByClient(Error),
    ByServer(Error),
}

/// Runs a handshake to completion on both sides.
fn handshake(client: ClientConfig, server: ServerConfig) -> Result<Established, HandshakeError> {
    handshake_with(Arc::new(client), Arc::new(server))
}

fn handshake_with(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Established, HandshakeError> {
    let name = ServerName::try_from("muster.internal").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(HandshakeError::ByServer)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(HandshakeError::ByClient)?;
        }
        let is_done = !client.is_handshaking()
            && !server.is_handshaking()
            && !client.wants_write()
            && !server.wants_write();
        if is_done {
            return Ok(Established { client, server });
        }
    }
    panic!("the handshake did not complete");
}

/// The [`PeerError`] inside a rustls error.
fn peer_error(error: &Error) -> PeerError {
    match error {
        Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<PeerError>().unwrap().clone()
        }
        error => panic!("not a PeerError: {error:?}"),
    }
}

#[track_caller]
fn refused_by_server(result: Result<Established, HandshakeError>) -> Error {
    match result {
        Err(HandshakeError::ByServer(error)) => error,
        other => panic!("the server did not refuse: {other:?}"),
    }
}

#[track_caller]
fn refused_by_client(result: Result<Established, HandshakeError>) -> Error {
    match result {
        Err(HandshakeError::ByClient(error)) => error,
        other => panic!("the client did not refuse: {other:?}"),
    }
}

fn is_expired(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { .. }))
}

/// Authorities of all clusters have the same name, so a foreign one is detected by its signature.
fn is_of_another_authority(error: &Error) -> bool {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    matches!(error, Error::InvalidCertificate(UnknownIssuer | BadSignature))
}

/// A certificate with the key of another identity, as a thief of certificates could present it.
fn stolen(chain: &[CertificateDer<'static>], thief: &Identity) -> Arc<CertifiedKey> {
    thief.certified(chain.to_vec())
}

/// A client that presents no certificate.
#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_p256_leaf_of_the_machine_authority_is_no_identity() {
    let key = KeyPair::generate().public();
    let node = Node::new();
    let profile = Profile::Node { id: node.id(), role: Role::Worker };
    assert!(leaf::issue(&machine_authority(), &profile, &key, now()).is_err());
}
