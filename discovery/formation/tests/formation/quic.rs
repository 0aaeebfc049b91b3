//! Birth over the real endpoint: sockets on loopback, tokens proved, promises on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_formation::birth::PromiseStore;
use muster_formation::birth::failpoint::FailPointHook;
use muster_formation::{self, Formation, Formed, QuicNetwork, Settings};
use muster_messages::hello::{
    AnchorReply, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, RenewReply,
};
use muster_pki::identity::Identity;
use muster_pki::token::{Token, TokenId, Verifier};
use muster_services::node::node_server::NodeServer;
use muster_transport::endpoint::{self, Bind, Caller, Endpoint, Trust};
use muster_transport::hello::{self, AuthenticatedPeer, HelloHandler, Rejection};
use muster_types::Role;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Hello handler like the daemon's before the cluster exists.
struct FormationHandler {
    token: Token,
    formation: Formation,
}

#[tonic::async_trait]
impl HelloHandler for FormationHandler {
    async fn verifier(&self, token: &TokenId) -> Option<Verifier> {
        (token == self.token.id()).then(|| self.token.verifier())
    }

    async fn greet(
        &self,
        peer: AuthenticatedPeer,
        request: GreetRequest,
    ) -> Result<GreetReply, Status> {
        let Caller { public_key, remote, .. } = peer.caller;
        let reply = self.formation.greet(public_key, remote, request).await;
        reply.map_err(|error| Status::failed_precondition(error.to_string()))
    }

    async fn birth(
        &self,
        peer: AuthenticatedPeer,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status> {
        let replies = self.formation.birth(peer.caller.public_key, message).await;
        replies.map_err(|error| Status::failed_precondition(error.to_string()))
    }

    async fn join(&self, _: AuthenticatedPeer, _: JoinRequest) -> Result<JoinReply, Status> {
        Ok(JoinReply::default())
    }

    async fn renew(&self, _: Caller) -> Result<RenewReply, Status> {
        Ok(RenewReply::default())
    }

    async fn anchor(&self, _: AuthenticatedPeer) -> Result<AnchorReply, Status> {
        Ok(AnchorReply::default())
    }

    fn on_rejection(&self, _: Rejection) {}
}

struct Node {
    handle: Formation,
    address: SocketAddr,
    hints: watch::Sender<Arc<BTreeSet<SocketAddr>>>,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
    _disk: TempDir,
    _trust: watch::Sender<Arc<Trust>>,
}

impl Node {
    fn start(number: usize, token: &Token) -> Self {
        let identity = Arc::new(Identity::generate());
        let (trusting, trust) = watch::channel(Arc::new(Trust::default()));
        let address = "127.0.0.1:0".parse().unwrap();
        let bind = Bind { address, identity: Arc::clone(&identity), trust };
        let (endpoint, listener) = Endpoint::bind(bind).unwrap();
        let address = endpoint.local_address().unwrap();
        let disk = tempfile::tempdir().unwrap();
        let store = PromiseStore::create(disk.path(), identity.node_id()).unwrap();
        let (hints, seen) = watch::channel(Arc::default());
        let settings = Settings {
            identity,
            name: format!("cp-{number}").parse().unwrap(),
            role: Role::ControlPlane,
            addresses: watch::channel(vec![address]).1,
            token_id: token.id().to_string(),
            expect: 3,
            founders: Vec::new(),
            birth_fields: BTreeMap::new(),
            hook: FailPointHook::noop(),
        };
        let network = QuicNetwork::new(endpoint, token.clone());
        let (handle, task) = muster_formation::prepare(settings, store, network, seen).unwrap();
        let handler = FormationHandler { token: token.clone(), formation: handle.clone() };
        let hello = hello::Server::new(Arc::new(handler)).service();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (ended, running) = (stop.clone(), stop.clone());
        let node = endpoint::service(NodeServer::new(muster_kit::Echo));
        tasks.spawn(async move { listener.run(hello, node, ended).await });
        tasks.spawn(async move { task.run(running).await.unwrap() });
        Self { handle, address, hints, stop, _tasks: tasks, _disk: disk, _trust: trusting }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_are_born_over_quic() {
    let token = Token::generate();
    let nodes: Vec<_> = (0..3).map(|number| Node::start(number, &token)).collect();
    let addresses: Arc<BTreeSet<_>> = Arc::new(nodes.iter().map(|node| node.address).collect());
    let start = Instant::now();
    for node in &nodes {
        node.hints.send_replace(Arc::clone(&addresses));
    }
    let mut clusters = BTreeSet::new();
    for node in &nodes {
        let waiting = || node.handle.candidate().borrow().waiting_for.clone();
        let formed = timeout(Duration::from_secs(20), node.handle.formed()).await;
        let formed = formed.unwrap_or_else(|_| panic!("not born; waiting for {}", waiting()));
        let Some(Formed::Born(certificate)) = formed else { panic!("{formed:?}") };
        certificate.verify().unwrap();
        clusters.insert(certificate.cluster_id());
    }
    eprintln_took(start.elapsed());
    assert_eq!(clusters.len(), 1, "{clusters:?}");
}

#[expect(clippy::print_stderr, reason = "prints a measurement, not part of the test")]
fn eprintln_took(took: Duration) {
    eprintln!("born {took:.0?} after the last start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_token_takes_no_part() {
    let token = Token::generate();
    let mut nodes: Vec<_> = (0..2).map(|number| Node::start(number, &token)).collect();
    nodes.push(Node::start(2, &Token::generate()));
    let addresses: Arc<BTreeSet<_>> = Arc::new(nodes.iter().map(|node| node.address).collect());
    for node in &nodes {
        node.hints.send_replace(Arc::clone(&addresses));
    }
    for node in &nodes {
        let mut candidate = node.handle.candidate();
        let named = candidate.wait_for(|own| own.waiting_for.contains("refused the token"));
        let named = timeout(Duration::from_secs(20), named).await;
        named.expect("the refusal is named").unwrap();
    }
    for node in &nodes {
        assert!(timeout(Duration::from_millis(10), node.handle.formed()).await.is_err());
    }
}
