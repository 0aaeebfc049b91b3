//! An in-process cluster: the real hello protocol and the real TLS of the operator API, in front of
//! an operator service that answers from a script.

mod operator;
mod operator_port;
mod user;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use muster_kit::ports::tcp_and_udp;
use muster_kit::{TestHelloHandler, TestNode, now};
use muster_messages::hello::{AnchorReply, Candidate};
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_types::{ClusterId, PublicKey};
use tokio::runtime::Runtime;

pub(crate) use self::user::{User, mode};

/// Scripted behaviour of a cluster's nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Condition that candidates wait for; `None` once there is a cluster.
    pub(crate) waiting_for: Option<String>,
    /// Number of calls to answer with UNAVAILABLE first.
    pub(crate) unavailable_calls: usize,
    /// Call that is never answered.
    pub(crate) never_answered: Option<String>,
    /// The next removal or defragmentation is done, but reported as unavailable.
    pub(crate) reply_lost: bool,
    /// Member that gossip reports as down.
    pub(crate) down: Option<String>,
    /// Calls of an admin are refused.
    pub(crate) deny: bool,
    /// A check fails, with text that changes at each call.
    pub(crate) unhealthy: bool,
    /// Number of `members` calls still answered; `None` for no limit.
    pub(crate) members_left: Option<usize>,
    /// Number of `health` calls still answered; `None` for no limit.
    pub(crate) health_left: Option<usize>,
    /// Reason why etcd does not answer; `None` if it does.
    pub(crate) etcd_unreachable: Option<String>,
    /// Pieces that `etcd snapshot` streams.
    pub(crate) snapshot: Vec<Vec<u8>>,
}

/// Requests that the nodes received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) calls: Vec<String>,
    pub(crate) node: Option<String>,
    pub(crate) verifier: Vec<u8>,
}

/// State shared by all nodes of a cluster.
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) machine: Authority,
    pub(crate) etcd: Authority,
    /// Server side of the first contact, of all nodes.
    pub(crate) hello: Arc<TestHelloHandler>,
    pub(crate) operators: Mutex<Vec<PublicKey>>,
    pub(crate) script: Mutex<Script>,
    pub(crate) received: Mutex<Received>,
}

impl Cluster {
    pub(crate) fn new(token: &Token, operator: PublicKey) -> Arc<Self> {
        let id = ClusterId::from_bytes(*Identity::generate().node_id().as_bytes());
        let authority = |kind| Authority::create(kind, "demo", &id, now());
        let cluster = Self {
            id,
            machine: authority(AuthorityKind::Machine),
            etcd: authority(AuthorityKind::Etcd),
            hello: Arc::default(),
            operators: Mutex::new(vec![operator]),
            script: Mutex::default(),
            received: Mutex::default(),
        };
        cluster.hello.accept_token(token);
        cluster.script(|_| ());
        Arc::new(cluster)
    }

    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        let mut script = self.script.lock().unwrap();
        change(&mut script);
        *self.hello.anchor.lock().unwrap() = self.anchor(script.waiting_for.as_deref());
    }

    /// Reply to the first contact: the trust anchor, unless the node still waits for something.
    fn anchor(&self, waiting_for: Option<&str>) -> AnchorReply {
        let node = Candidate {
            name: "cp-1".to_owned(),
            role: muster_messages::hello::NodeRole::ControlPlane.into(),
            version: "0.1.0".to_owned(),
            waiting_for: waiting_for.unwrap_or_default().to_owned(),
            ..Candidate::default()
        };
        match waiting_for {
            Some(_) => AnchorReply { node: Some(node), ..AnchorReply::default() },
            None => AnchorReply {
                node: Some(node),
                cluster_id: self.id.to_vec(),
                cluster_name: "demo".to_owned(),
                machine_authorities: vec![self.machine.certificate().to_vec()],
                peers: Vec::new(),
            },
        }
    }
}

/// A node of a [`Cluster`]: serves both ports until dropped.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    _hello: TestNode,
    _runtime: Runtime,
}

impl Node {
    pub(crate) fn start(cluster: &Arc<Cluster>) -> Self {
        let (tcp, address) = tcp_and_udp();
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        operator_port::serve(&runtime, tcp, Arc::clone(cluster));
        let identity = Arc::new(Identity::generate());
        let hello = TestNode::start_with(address, identity, Arc::clone(&cluster.hello));
        drop(guard);
        Self { address, _hello: hello, _runtime: runtime }
    }
}
