//! One node of the lab.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use muster_kit::{bounded, until};
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_services::node::node_client::NodeClient;
use muster_services::node::node_server::NodeServer;
use muster_transport::endpoint::{self, Bind, Endpoint, NodeChannel, Trust};
use muster_transport::hello;
use muster_types::wire::MAX_MESSAGE;
use muster_types::{ClusterId, NodeId, NodeName, Role};
use musterd::api::hello::HelloService;
use musterd::api::node::NodeService;
use musterd::api::node_status::NodeStatusProvider;
use musterd::controllers::voters;
use musterd::raft::{self, Group, StartError};
use musterd::status::StatusWriter;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Configuration of a node, which is kept across restarts.
pub(crate) struct Plan {
    pub(crate) name: NodeName,
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Arc<Identity>,
    pub(crate) token: Token,
    pub(crate) cluster: ClusterId,
    pub(crate) snapshot_every: u64,
    pub(crate) voters: bool,
}

/// One node. The test sets its trust and its view of the cluster.
pub(crate) struct Node {
    pub(crate) plan: Plan,
    pub(crate) trust: watch::Sender<Arc<Trust>>,
    pub(crate) status: StatusWriter,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    endpoint: Endpoint,
    hello: Arc<HelloService>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    pub(crate) fn new(plan: Plan) -> Self {
        let status = StatusWriter::new(Some(plan.cluster), vec![plan.address]);
        status.set_member();
        status.set_connected(true);
        Self { plan, trust: watch::Sender::default(), status, running: None }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.plan.identity.node_id()
    }

    /// Opens the endpoint and serves both ALPNs.
    pub(crate) async fn bind(&mut self) {
        // A killed node holds its socket until its last task has ended.
        let address = self.plan.address;
        until("the node's address is free", async || UdpSocket::bind(address).ok()).await;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(self.plan.name.as_str())
            .enable_all()
            .build()
            .unwrap();
        let node_status = Arc::new(NodeStatusProvider {
            name: self.plan.name.clone(),
            role: self.plan.role,
            status: self.status.reader(),
            trust: self.trust.subscribe(),
        });
        let (rejections, _) = mpsc::channel(64);
        let hello_service = Arc::new(HelloService {
            node_status: Arc::clone(&node_status),
            token: self.plan.token.clone(),
            formation: None,
            trust: self.trust.subscribe(),
            birth_fields: BTreeMap::new(),
            rejections,
        });
        let entered = runtime.enter();
        let (endpoint, listener) = Endpoint::bind(Bind {
            address: self.plan.address,
            identity: Arc::clone(&self.plan.identity),
            trust: self.trust.subscribe(),
        })
        .unwrap();
        let node = NodeServer::new(NodeService::new(node_status))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let hello = hello::Server::new(Arc::clone(&hello_service) as Arc<dyn hello::HelloHandler>)
            .service();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(listener.run(hello, endpoint::service(node), stop.clone()));
        drop(entered);
        self.running = Some(Running { runtime, endpoint, hello: hello_service, stop, tasks });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the node runs")
    }

    /// Starts Raft and the voters controller.
    pub(crate) async fn start_raft(&mut self, founders: Option<BTreeSet<NodeId>>) {
        let group = until("the node's Raft opens its directory", async || {
            match self.try_start_raft(founders.clone()).await {
                Ok(group) => Some(group),
                // A killed node holds its lock until its writer thread has ended.
                Err(StartError::Open(muster_storage::OpenError::Directory(
                    muster_storage::DirectoryError::Locked { .. },
                ))) => None,
                Err(error) => panic!("{}", muster_types::error::chain(&error)),
            }
        })
        .await;
        self.status.set_group(Some(group));
        if self.plan.voters {
            self.run_voters_controller();
        }
    }

    /// Starts the voters controller on this node.
    pub(crate) fn run_voters_controller(&mut self) {
        let group = self.group();
        let running = self.running.as_mut().expect("the node runs");
        let (runtime, stop) = (running.runtime.handle().clone(), running.stop.clone());
        running.tasks.spawn_on(voters::run(group, |_| true, stop), &runtime);
    }

    /// Directory of its Raft store.
    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.plan.dir.join("raft")
    }

    pub(crate) fn has_group(&self) -> bool {
        self.status.reader().group().is_some()
    }

    async fn try_start_raft(
        &self,
        founders: Option<BTreeSet<NodeId>>,
    ) -> Result<Group, StartError> {
        let Running { runtime, endpoint, stop, .. } = self.running();
        std::fs::create_dir_all(&self.plan.dir).unwrap();
        let start = raft::StartOptions {
            dir: self.raft_dir(),
            me: self.id(),
            cluster: self.plan.cluster,
            founders,
            snapshot_every: self.plan.snapshot_every,
        };
        let (endpoint, stop) = (endpoint.clone(), stop.clone());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        // Not among the awaited tasks: a kill drops it with the runtime.
        let raft_task: JoinHandle<()> = runtime.spawn(async move {
            match raft::start(start, endpoint).await {
                Err(error) => drop(ready.send(Err(error))),
                Ok(running) => {
                    drop(ready.send(Ok(running.group.clone())));
                    running.run(stop).await;
                }
            }
        });
        drop(raft_task);
        bounded("Raft starts", is_ready).await.unwrap()
    }

    pub(crate) fn group(&self) -> Group {
        self.status.reader().group().expect("the node's Raft runs")
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.running().endpoint
    }

    pub(crate) fn hello(&self) -> Arc<HelloService> {
        Arc::clone(&self.running().hello)
    }

    /// Calls another node as this one.
    pub(crate) fn client(&self, peer: &Self) -> NodeClient<NodeChannel> {
        NodeClient::new(self.endpoint().channel(peer.id()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Aborts all tasks like SIGKILL: nothing is flushed in order and no connection is closed.
    pub(crate) fn kill(&mut self) {
        self.status.set_group(None);
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }

    /// Removes a peer from this node's directory.
    pub(crate) fn remove_peer(&self, peer: NodeId) {
        self.trust.send_modify(|trust| {
            let mut now = (**trust).clone();
            now.directory.remove(&peer);
            *trust = Arc::new(now);
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
