//! Node on a loopback socket: an endpoint with a hello handler and an echo service.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_messages::node::RaftMessage;
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_services::node::node_client::NodeClient;
use muster_services::node::node_server::NodeServer;
use muster_transport::endpoint::{self, Bind, Directory, Endpoint, NodeChannel, Peer, Trust};
use muster_transport::hello::{self, HelloHandler};
use muster_types::{NodeId, Role};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::echo::Echo;
use crate::hello_handler::TestHelloHandler;
use crate::wait::bounded;

/// Running node. Everything ends when it is dropped.
#[derive(Debug)]
pub struct TestNode {
    pub identity: Arc<Identity>,
    pub endpoint: Endpoint,
    pub handler: Arc<TestHelloHandler>,
    /// Credentials and directory that this node uses.
    pub trust: watch::Sender<Arc<Trust>>,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    tasks: JoinSet<()>,
    _guard: DropGuard,
}

impl TestNode {
    /// Starts a node on this address with a new identity. Port 0 takes any port.
    pub fn start(address: &str) -> Self {
        Self::start_as(address, Arc::new(Identity::generate()))
    }

    /// Like [`Self::start`], with this identity.
    pub fn start_as(address: &str, identity: Arc<Identity>) -> Self {
        Self::start_with(address.parse().unwrap(), identity, Arc::default())
    }

    /// Starts a node that answers hello sessions by this handler.
    pub fn start_with(
        address: SocketAddr,
        identity: Arc<Identity>,
        handler: Arc<TestHelloHandler>,
    ) -> Self {
        let (trust, seen) = watch::channel(Arc::new(Trust::default()));
        let bind = Bind { address, identity: Arc::clone(&identity), trust: seen };
        let (endpoint, listener) = Endpoint::bind(bind).unwrap();
        let address = endpoint.local_address().unwrap();
        let stop = CancellationToken::new();
        let hello = hello::Server::new(Arc::clone(&handler) as Arc<dyn HelloHandler>).service();
        let node = endpoint::service(NodeServer::new(Echo));
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run(hello, node, stop.clone()));
        let guard = stop.clone().drop_guard();
        Self { identity, endpoint, handler, trust, address, stop, tasks, _guard: guard }
    }

    pub fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// Makes this token valid at this node.
    pub fn accept_token(&self, token: &Token) {
        self.handler.accept_token(token);
    }

    /// Returns this node's entry in a directory.
    pub fn peer(&self, role: Role) -> Peer {
        Peer {
            public_key: self.identity.public_key(),
            name: format!("n{}", self.address.port()).parse().unwrap(),
            role,
            addresses: vec![self.address],
        }
    }

    /// Returns a client of the peer's [`Echo`] service.
    pub fn client(&self, peer: &Self) -> NodeClient<NodeChannel> {
        NodeClient::new(self.endpoint.channel(peer.id()))
    }

    /// Returns the reasons of the rejections so far.
    pub fn rejections(&self) -> Vec<hello::RejectReason> {
        self.handler.rejections.lock().unwrap().iter().map(|rejection| rejection.reason).collect()
    }

    /// Stops gracefully and waits for the end.
    pub async fn shut_down(mut self) -> Arc<Identity> {
        self.stop.cancel();
        bounded("the listener stops", async { while self.tasks.join_next().await.is_some() {} })
            .await;
        self.identity
    }

    /// Removes a peer from this node's directory.
    pub fn forget(&self, peer: &Self) {
        self.trust.send_modify(|trust| {
            let mut now = (**trust).clone();
            now.directory.remove(&peer.id());
            *trust = Arc::new(now);
        });
    }
}

/// Makes all nodes members of one cluster at genesis: authenticated by their keys alone.
pub fn form_cluster(nodes: &[&TestNode]) {
    let members = nodes.iter().map(|node| (node.id(), node.peer(Role::ControlPlane)));
    let directory: Directory = members.collect();
    for node in nodes {
        let trust = Trust { credentials: None, directory: directory.clone() };
        node.trust.send_replace(Arc::new(trust));
    }
}

/// Returns a message of this body for [`Echo`].
pub fn message(body: impl Into<Vec<u8>>) -> RaftMessage {
    RaftMessage { body: body.into() }
}
