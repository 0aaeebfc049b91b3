//! Nodes on loopback sockets, with a hello handler for one token and a node service that echoes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

pub mod cable;
pub mod ports;
pub mod raw_client;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use muster_messages::hello::{
    AnchorReply, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, RenewReply,
};
use muster_messages::node::{
    ForwardReply, ForwardRequest, ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply,
    ReadIndexRequest, ReportReply, ReportRequest, SnapshotChunk, View, WatchRequest,
};
use muster_pki::identity::Identity;
use muster_pki::token::{Token, TokenId, Verifier};
use muster_services::node::node_client::NodeClient;
use muster_services::node::node_server::{Node, NodeServer};
use muster_transport::endpoint::{
    self, Bind, Caller, Directory, Endpoint, NodeChannel, Peer, Trust,
};
use muster_transport::hello::{self, AuthenticatedPeer, HelloHandler, Rejection};
use muster_types::{NodeId, Role};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

/// Timeout of every wait in the tests.
pub const TIMEOUT: Duration = Duration::from_secs(40);

/// Waits for a condition; panics with its name on timeout.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, search).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

/// Hello handler that knows some tokens, gives prepared replies and records rejections. Several nodes
/// may share one.
#[derive(Debug)]
pub struct TestHelloHandler {
    pub tokens: Mutex<BTreeMap<TokenId, Verifier>>,
    pub rejections: Mutex<Vec<Rejection>>,
    pub peers: Mutex<Vec<AuthenticatedPeer>>,
    /// Reply to every `Anchor` call.
    pub anchor: Mutex<AnchorReply>,
    pub anchor_calls: AtomicUsize,
}

impl Default for TestHelloHandler {
    fn default() -> Self {
        let anchor = AnchorReply { cluster_name: "demo".to_owned(), ..AnchorReply::default() };
        Self {
            tokens: Mutex::default(),
            rejections: Mutex::default(),
            peers: Mutex::default(),
            anchor: Mutex::new(anchor),
            anchor_calls: AtomicUsize::new(0),
        }
    }
}

impl TestHelloHandler {
    pub fn accept_token(&self, token: &Token) {
        self.tokens.lock().unwrap().insert(token.id().clone(), token.verifier());
    }
}

#[tonic::async_trait]
impl HelloHandler for TestHelloHandler {
    async fn verifier(&self, token: &TokenId) -> Option<Verifier> {
        self.tokens.lock().unwrap().get(token).cloned()
    }

    async fn greet(
        &self,
        peer: AuthenticatedPeer,
        request: GreetRequest,
    ) -> Result<GreetReply, Status> {
        self.peers.lock().unwrap().push(peer);
        Ok(GreetReply { candidate: request.candidate, peers: vec![] })
    }

    async fn birth(
        &self,
        _: AuthenticatedPeer,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status> {
        Ok(vec![message])
    }

    async fn join(&self, _: AuthenticatedPeer, _: JoinRequest) -> Result<JoinReply, Status> {
        Ok(JoinReply::default())
    }

    async fn renew(&self, _: Caller) -> Result<RenewReply, Status> {
        Ok(RenewReply::default())
    }

    async fn anchor(&self, _: AuthenticatedPeer) -> Result<AnchorReply, Status> {
        self.anchor_calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.anchor.lock().unwrap().clone())
    }

    fn on_rejection(&self, rejection: Rejection) {
        self.rejections.lock().unwrap().push(rejection);
    }
}

/// Echoes appends, counts snapshots, streams views indefinitely.
#[derive(Debug)]
pub struct Echo;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Echo {
    type WatchStream = Streamed<View>;
    type ForwardStream = Streamed<ForwardReply>;

    async fn append_entries(
        &self,
        r: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        Caller::of(&r)?.require_control_plane()?;
        Ok(Response::new(r.into_inner()))
    }

    /// Never replies.
    async fn request_vote(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        std::future::pending().await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut pieces = request.into_inner();
        let mut total = 0u64;
        while let Some(piece) = pieces.next().await {
            total += piece?.body.len() as u64;
        }
        Ok(Response::new(RaftMessage { body: total.to_be_bytes().to_vec() }))
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn read_index(
        &self,
        _: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        Ok(Response::new(ReportReply::default()))
    }

    /// Sends one view, then one more every 20 ms.
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let ticks = tokio::time::interval(Duration::from_millis(20));
        let ticks = tokio_stream::wrappers::IntervalStream::new(ticks);
        let mut index = 0;
        let views = ticks.map(move |_| {
            index += 1;
            Ok(View { index, ..View::default() })
        });
        Ok(Response::new(Box::pin(views)))
    }

    async fn forward(
        &self,
        _: Request<ForwardRequest>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Running node. Everything ends when it is dropped.
#[derive(Debug)]
pub struct TestNode {
    pub identity: Arc<Identity>,
    pub endpoint: Endpoint,
    pub handler: Arc<TestHelloHandler>,
    pub trust: watch::Sender<Arc<Trust>>,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    tasks: JoinSet<()>,
    _guard: DropGuard,
}

impl TestNode {
    pub fn start(address: &str) -> Self {
        Self::start_as(address, Arc::new(Identity::generate()))
    }

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

    pub fn accept_token(&self, token: &Token) {
        self.handler.accept_token(token);
    }

    pub fn peer(&self, role: Role) -> Peer {
        Peer {
            public_key: self.identity.public_key(),
            name: format!("n{}", self.address.port()).parse().unwrap(),
            role,
            addresses: vec![self.address],
        }
    }

    pub fn client(&self, peer: &Self) -> NodeClient<NodeChannel> {
        NodeClient::new(self.endpoint.channel(peer.id()))
    }

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

    pub fn forget(&self, peer: &Self) {
        self.trust.send_modify(|trust| {
            let mut now = (**trust).clone();
            now.directory.remove(&peer.id());
            *trust = Arc::new(now);
        });
    }
}

/// Panics with the name of the step on timeout.
pub async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| panic!("never came: {what}"))
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

#[expect(clippy::disallowed_methods, reason = "rustls checks by the real clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

pub fn message(body: impl Into<Vec<u8>>) -> RaftMessage {
    RaftMessage { body: body.into() }
}

/// Returns a request with this timeout.
pub fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
