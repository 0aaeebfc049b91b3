//! Builds a node from its parts and runs it. The only place that knows all of them.
//!
//! Starts the tasks that run as long as the process: endpoint, hello service, candidates,
//! formation. [`crate::member`] starts a member's other tasks once this node belongs to a cluster.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_formation::birth::failpoint::FailPointHook;
use muster_init::facts;
use muster_services::node::node_server::NodeServer;
use muster_sources::{self, Sources, mdns};
use muster_transport::endpoint::{Bind, Endpoint, service};
use muster_transport::hello;
use muster_types::wire::MAX_MESSAGE;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::api::hello::{HelloService, audit, rejection_queue};
use crate::api::node::NodeService;
use crate::api::node_status::NodeStatusProvider;
use crate::fatal::Fatal;
use crate::member::MemberRuntime;
use crate::ports::{self, OperatorPort};
use crate::prepare::Prepared;
use crate::state_dir::StateDir;
use crate::status::StatusWriter;
use crate::tasks::Tasks;
use crate::trust_store;

/// Time limit for the tasks to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// A composed node. It starts when [`Node::run`] is polled.
#[derive(Debug)]
pub struct Node {
    tasks: Tasks,
    stop: CancellationToken,
    /// Endpoint and its dependencies. They stop last, because gossip sends its goodbye over it.
    endpoint_tasks: Tasks,
    stop_endpoint: CancellationToken,
    /// Fatal errors that stop the node.
    fatal: mpsc::Receiver<Fatal>,
    /// Keeps the state directory locked until all tasks of this node have ended.
    _lock: Arc<StateDir>,
}

impl Node {
    /// Runs until `signal`, a fatal error or an unexpected task exit. Then stops cleanly.
    pub async fn run(mut self, signal: impl Future<Output = ()>) -> Result<(), Fatal> {
        let outcome = tokio::select! {
            () = signal => Ok(()),
            Some(fatal) = self.fatal.recv() => Err(fatal),
            Some(ended) = self.tasks.next_exit() => Err(unexpected_exit(ended)),
            Some(ended) = self.endpoint_tasks.next_exit() => Err(unexpected_exit(ended)),
        };
        info!("stopping");
        self.stop.cancel();
        if timeout(SHUTDOWN_TIMEOUT, self.tasks.drain()).await.is_err() {
            error!("tasks did not stop in time");
        }
        self.stop_endpoint.cancel();
        if timeout(SHUTDOWN_TIMEOUT, self.endpoint_tasks.drain()).await.is_err() {
            error!("endpoint did not close in time");
        }
        outcome
    }
}

fn unexpected_exit((name, panicked): (&'static str, bool)) -> Fatal {
    if panicked { Fatal::TaskPanicked(name) } else { Fatal::TaskExited(name) }
}

/// Composes the node. Waits while its UDP port is busy. Sends nothing before [`Node::run`].
pub async fn compose(prepared: Prepared) -> Result<Node, Fatal> {
    let stop = CancellationToken::new();
    let mut tasks = Tasks::default();
    let (fatal_sender, fatal) = mpsc::channel(4);
    let Prepared { config, identity, state, addresses, membership, .. } = &prepared;
    info!(name = %config.name, id = %identity.node_id(), role = %config.role, "starting");
    info!(role = %config.role, because = prepared.role_origin, "role of this node");

    let (trust_store, trust_task) =
        trust_store::create(Arc::clone(identity), state.membership(), membership.clone());
    let (endpoint, quic) = ports::open_endpoint(|| Bind {
        address: addresses.bind,
        identity: Arc::clone(identity),
        trust: trust_store.trust(),
    })
    .await?;
    let (mut endpoint_tasks, stop_endpoint) = (Tasks::default(), CancellationToken::new());
    // Open sessions need the trust store until the endpoint closes.
    endpoint_tasks.spawn("trust-store", trust_task.run(stop_endpoint.clone()));
    let status = publish_addresses(&mut tasks, &prepared, &stop);
    let operator_port = OperatorPort::open(addresses.bind, status.clone()).await?;
    let sources = sources(&mut tasks, &prepared, &status, &stop);

    let formation = match membership {
        // A founder's record shows the birth; formation still answers late birth messages.
        Some(_) if prepared.promises.record.born().is_none() => None,
        _ => {
            let (handle, task) = formation(&prepared, &endpoint, &sources, &status)?;
            tasks.spawn("formation", run_formation(task, fatal_sender.clone(), stop.clone()));
            Some(handle)
        }
    };
    let (rejections, rejection_receiver) = rejection_queue();
    tasks.spawn("audit", audit(rejection_receiver, status.reader(), stop.clone()));
    let node_status = Arc::new(NodeStatusProvider {
        name: config.name.clone(),
        role: config.role,
        status: status.reader(),
        trust: trust_store.trust(),
    });
    let hello_handler = HelloService {
        node_status: Arc::clone(&node_status),
        token: prepared.token.token.clone(),
        formation: formation.clone(),
        trust: trust_store.trust(),
        birth_fields: prepared.birth_fields(),
        rejections: rejections.clone(),
    };
    let hello_service = hello::Server::new(Arc::new(hello_handler)).service();
    let node_service = NodeServer::new(NodeService::new(Arc::clone(&node_status)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let quic = quic.with_rejections(rejections);
    endpoint_tasks
        .spawn("endpoint", quic.run(hello_service, service(node_service), stop_endpoint.clone()));

    let lock = Arc::clone(&prepared.state);
    let member = MemberRuntime {
        prepared,
        endpoint,
        operator_port,
        trust_store,
        sources,
        formation,
        status,
        node_status,
    };
    tasks.spawn("member", member.run(fatal_sender, stop.clone()));
    Ok(Node { tasks, stop, endpoint_tasks, stop_endpoint, fatal, _lock: lock })
}

/// Creates the status of this node, and follows the addresses at which other nodes reach it.
fn publish_addresses(
    tasks: &mut Tasks,
    prepared: &Prepared,
    stop: &CancellationToken,
) -> StatusWriter {
    let addresses = prepared.addresses.clone();
    let filter = addresses.clone();
    let (mut found, follow) = facts::watch(move |address| filter.includes(address), stop.clone());
    let first = addresses.reachable(&found.borrow_and_update(), None);
    let cluster = prepared.membership.as_ref().map(|membership| membership.cluster_id);
    let status = StatusWriter::new(cluster, first);
    let (writer, own, stop) = (status.clone(), status.reader().addresses(), stop.clone());
    tasks.spawn("addresses", async move {
        let map = async {
            while found.changed().await.is_ok() {
                let before = own.borrow().first().map(SocketAddr::ip);
                writer.set_addresses(addresses.reachable(&found.borrow_and_update(), before));
            }
        };
        tokio::join!(follow, stop.run_until_cancelled(map));
    });
    status
}

/// Starts the discovery sources.
fn sources(
    tasks: &mut Tasks,
    prepared: &Prepared,
    status: &StatusWriter,
    stop: &CancellationToken,
) -> Sources {
    let mut own = status.reader().addresses();
    let Prepared { config, identity, state, addresses, token, .. } = prepared;
    let discovery = &config.discovery;
    // mDNS on a loopback address would reach only other programs on this machine.
    let mdns = (discovery.mdns && !addresses.bind.ip().is_loopback()).then(|| {
        let addresses = addresses.clone();
        mdns::Settings {
            me: identity.node_id(),
            token_id: token.id.to_string(),
            address_filter: Arc::new(move |ip| !ip.is_loopback() && addresses.includes(ip)),
        }
    });
    let settings = muster_sources::Settings {
        port: config.network.port,
        own: own.borrow().iter().copied().collect(),
        static_peers: discovery.static_peers.clone(),
        servers: discovery.dns.as_ref().map(|dns| dns.servers.clone()).unwrap_or_default(),
        domain: discovery.dns.as_ref().map(|dns| dns.domain.clone()),
        mdns,
        remembered: state.peers(),
    };
    let (sources, sources_task) = Sources::new(settings, stop.clone());
    tasks.spawn("sources", sources_task.run());
    let (follow, stop) = (sources.clone(), stop.clone());
    tasks.spawn("own-addresses", async move {
        while let Some(Ok(())) = stop.run_until_cancelled(own.changed()).await {
            follow.set_own_addresses(
                own.borrow_and_update().iter().copied().collect::<BTreeSet<_>>(),
            );
        }
        stop.cancelled().await;
    });
    sources
}

/// Prepares formation. On a founder, it also answers late messages about the birth.
fn formation(
    prepared: &Prepared,
    endpoint: &Endpoint,
    sources: &Sources,
    status: &StatusWriter,
) -> Result<
    (muster_formation::Formation, muster_formation::FormationTask<muster_formation::QuicNetwork>),
    Fatal,
> {
    let config = &prepared.config;
    let hook = FailPointHook::from_environment()
        .map_err(|error| Fatal::start("arm a fail point", error))?;
    let settings = muster_formation::Settings {
        identity: Arc::clone(&prepared.identity),
        name: config.name.clone(),
        role: config.role,
        addresses: status.reader().addresses(),
        token_id: prepared.token.id.to_string(),
        expect: usize::from(config.cluster.expect),
        founders: config.cluster.founders.clone(),
        birth_fields: prepared.birth_fields(),
        hook,
    };
    let store = prepared.promises.store.clone();
    let network =
        muster_formation::QuicNetwork::new(endpoint.clone(), prepared.token.token.clone());
    muster_formation::prepare(settings, store, network, sources.hints())
        .map_err(|error| Fatal::start("read this node's promises", error))
}

/// Runs formation. Only an error stops the node.
async fn run_formation(
    task: muster_formation::FormationTask<muster_formation::QuicNetwork>,
    fatal_sender: mpsc::Sender<Fatal>,
    stop: CancellationToken,
) {
    if let Err(error) = task.run(stop.clone()).await {
        fatal_sender.send(Fatal::Store(muster_types::error::chain(&error))).await.ok();
    }
    stop.cancelled().await;
}
