//! A cluster in one process: real endpoints on loopback addresses, real stores in a temporary
//! directory, and a cable between every two nodes that can be cut. Each node has its own runtime,
//! so that it can be killed like a process.

pub(crate) mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use muster_kit::cable::Cable;
use muster_kit::until;
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_state::command::{Admit, CreateToken, FoundCluster, Founder, Grant, InstallAuthorities};
use muster_state::{Actor, ClusterState, Command, Outcome, Report};
use muster_transport::endpoint::{Directory, Peer, Trust};
use muster_types::{ClusterId, ConfigVersion, NodeId, NodeName, Role};
use musterd::controllers::founding::generate_authorities;
use musterd::raft::Group;

use node::{Node, Plan};

/// Size and options of a lab.
pub(crate) struct LabOptions {
    pub(crate) founders: usize,
    /// Control-plane nodes that are not members yet.
    pub(crate) spares: usize,
    pub(crate) workers: usize,
    pub(crate) snapshot_every: u64,
    /// True if every node runs the voters controller.
    pub(crate) voters: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        let snapshot_every = musterd::raft::timing::SNAPSHOT_EVERY;
        Self { founders: 3, spares: 0, workers: 0, snapshot_every, voters: true }
    }
}

/// Nodes (founders, then spares, then workers) and the cables between them.
pub(crate) struct Lab {
    pub(crate) nodes: Vec<Node>,
    pub(crate) token: Token,
    pub(crate) cluster: ClusterId,
    cables: BTreeMap<(usize, usize), Cable>,
    founders: usize,
    _dir: tempfile::TempDir,
}

impl Lab {
    /// Starts the founders with Raft and the other nodes with an endpoint only.
    pub(crate) async fn start(options: LabOptions) -> Self {
        log();
        let LabOptions { founders, spares, workers, snapshot_every, voters } = options;
        let dir = tempfile::tempdir().unwrap();
        let (token, cluster) = (Token::generate(), ClusterId::from_bytes([7; 32]));
        let total = founders + spares + workers;
        let block = Block::free(total);
        let mut cables = BTreeMap::new();
        for from in 0..total {
            for to in (0..total).filter(|to| *to != from) {
                let cable = Cable::to(block.node(to)).await;
                cables.insert((from, to), cable);
            }
        }
        let plan = |at: usize| Plan {
            name: format!("n{}", at + 1).parse().unwrap(),
            role: if at < founders + spares { Role::ControlPlane } else { Role::Worker },
            address: block.node(at),
            dir: dir.path().join(format!("n{}", at + 1)),
            identity: Arc::new(Identity::generate()),
            token: token.clone(),
            cluster,
            snapshot_every,
            voters,
        };
        let nodes: Vec<_> = (0..total).map(|at| Node::new(plan(at))).collect();
        let mut lab = Self { nodes, token, cluster, cables, founders, _dir: dir };
        lab.connect_all();
        for at in 0..total {
            lab.nodes[at].bind().await;
        }
        for at in 0..founders {
            lab.start_raft(at).await;
        }
        lab
    }

    /// Starts a lab whose cluster is founded and has its authorities.
    pub(crate) async fn founded(options: LabOptions) -> Self {
        let lab = Self::start(options).await;
        // Leaders may change while the founders start; a repeated command changes nothing.
        lab.group(0).propose(lab.found()).await.unwrap().into_result().unwrap();
        lab.group(0).propose(lab.install()).await.unwrap().into_result().unwrap();
        lab
    }

    /// Adds all nodes to every node's directory, each with the address of its cable.
    pub(crate) fn connect_all(&self) {
        for at in 0..self.nodes.len() {
            let directory = self.directory(at);
            self.nodes[at].trust.send_modify(|trust| {
                let credentials = trust.credentials.clone();
                *trust = Arc::new(Trust { credentials, directory });
            });
        }
    }

    fn directory(&self, of: usize) -> Directory {
        let peer = |at: usize| {
            let plan = &self.nodes[at].plan;
            let address = self.cables.get(&(of, at)).map_or(plan.address, |cable| cable.address);
            Peer {
                public_key: plan.identity.public_key(),
                name: plan.name.clone(),
                role: plan.role,
                addresses: vec![address],
            }
        };
        (0..self.nodes.len()).map(|at| (self.id(at), peer(at))).collect()
    }

    /// Starts the Raft of a node, for the first time or from its directory.
    pub(crate) async fn start_raft(&mut self, at: usize) {
        let founders = (at < self.founders).then(|| self.ids(0..self.founders));
        self.nodes[at].start_raft(founders).await;
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.nodes[at].id()
    }

    pub(crate) fn ids(&self, which: impl IntoIterator<Item = usize>) -> BTreeSet<NodeId> {
        which.into_iter().map(|at| self.id(at)).collect()
    }

    pub(crate) fn group(&self, at: usize) -> Group {
        self.nodes[at].group()
    }

    /// Cuts or restores all cables between a node and the others.
    pub(crate) fn set_isolated(&self, at: usize, is_cut: bool) {
        for ((from, to), cable) in &self.cables {
            if *from == at || *to == at {
                set_cut(cable, is_cut);
            }
        }
    }

    pub(crate) fn isolate(&self, at: usize) {
        self.set_isolated(at, true);
    }

    pub(crate) fn heal(&self, at: usize) {
        self.set_isolated(at, false);
    }

    /// Cuts or restores both cables between two nodes.
    pub(crate) fn set_cut(&self, one: usize, other: usize, is_cut: bool) {
        set_cut(&self.cables[&(one, other)], is_cut);
        set_cut(&self.cables[&(other, one)], is_cut);
    }

    /// Waits until exactly one of these nodes leads and the running others agree.
    pub(crate) async fn leader_among(&self, among: &[usize]) -> usize {
        until("one leader that all of them know", async || {
            let leaders: Vec<_> =
                among.iter().copied().filter(|at| self.group(*at).is_leader()).collect();
            let [leader] = leaders[..] else { return None };
            let id = self.id(leader);
            among.iter().all(|at| self.group(*at).leader() == Some(id)).then_some(leader)
        })
        .await
    }

    pub(crate) async fn leader(&self) -> usize {
        let all: Vec<_> = (0..self.founders).collect();
        self.leader_among(&all).await
    }

    /// The founders except one.
    pub(crate) fn others(&self, but: usize) -> Vec<usize> {
        (0..self.founders).filter(|at| *at != but).collect()
    }

    /// Waits until these nodes have applied the same entries, then compares their states.
    pub(crate) async fn assert_equal(&self, among: &[usize]) {
        let states = until("equal states", async || {
            let states: Vec<_> = among.iter().map(|at| self.group(*at).state()).collect();
            states.windows(2).all(|pair| pair[0].index() == pair[1].index()).then_some(states)
        })
        .await;
        let bytes: BTreeSet<_> = states.iter().map(|state| serialized(state)).collect();
        assert_eq!(bytes.len(), 1, "the states of {among:?} differ at index {}", states[0].index());
    }

    pub(crate) fn found(&self) -> Command {
        let founder = |node: &Node| Founder {
            public_key: node.plan.identity.public_key(),
            name: node.plan.name.clone(),
            addresses: vec![node.plan.address],
        };
        Command::FoundCluster(Box::new(FoundCluster {
            cluster_id: self.cluster,
            cluster_name: "demo".to_owned(),
            certificate: vec![1],
            founders: self.nodes[..self.founders].iter().map(founder).collect(),
            operators: Vec::new(),
            token: self.token.id().clone(),
            verifier: self.token.verifier(),
            config_digest: [5; 32],
        }))
    }

    pub(crate) fn install(&self) -> Command {
        let authorities = generate_authorities("demo", &self.cluster);
        Command::InstallAuthorities(Box::new(InstallAuthorities { authorities, by: self.id(0) }))
    }

    /// Admits a node of the lab with the founding token.
    pub(crate) async fn admit(&self, at: usize) {
        let plan = &self.nodes[at].plan;
        let admit = Command::Admit(Admit {
            public_key: plan.identity.public_key(),
            name: plan.name.clone(),
            role: plan.role,
            addresses: vec![plan.address],
            version: "0.1.0".to_owned(),
            token: self.token.id().clone(),
            verified_by: self.id(0),
        });
        let asked = self.current_leader().unwrap_or(0);
        let outcome = self.group(asked).propose(admit).await.unwrap();
        assert!(matches!(outcome, Outcome::Admitted { .. }), "{outcome:?}");
    }

    /// The node that considers itself the leader, if any.
    pub(crate) fn current_leader(&self) -> Option<usize> {
        let running = |at: &usize| self.nodes[*at].has_group();
        (0..self.nodes.len()).filter(running).find(|at| self.group(*at).is_leader())
    }

    /// Kills a node like SIGKILL; its address and its directory remain.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].kill();
    }

    /// Starts a node that was killed or stopped.
    pub(crate) async fn restart(&mut self, at: usize) {
        self.nodes[at].bind().await;
        self.start_raft(at).await;
    }

    /// A write that can be read back by its number.
    pub(crate) fn numbered_write(&self, number: u64) -> Command {
        let plan = &self.nodes[0].plan;
        Command::Report(Report {
            node: self.id(0),
            addresses: vec![plan.address],
            version: format!("{number:x<60}"),
            config_version: ConfigVersion::FIRST,
            etcd: None,
        })
    }

    /// The number that the last applied [`Self::numbered_write`] carried.
    pub(crate) fn number(&self, state: &ClusterState) -> Option<u64> {
        state.member(&self.id(0))?.version.trim_end_matches('x').parse().ok()
    }
}

fn set_cut(cable: &Cable, is_cut: bool) {
    if is_cut { cable.cut() } else { cable.heal() }
}

pub(crate) fn serialized(state: &ClusterState) -> Vec<u8> {
    musterd::raft::codec::encode(state)
}

/// A new token: a write that stays in the state.
pub(crate) fn new_token(roles: &[Role], node_name: Option<&str>) -> (Token, Command) {
    let token = Token::generate();
    let create = CreateToken {
        token: token.id().clone(),
        verifier: token.verifier(),
        grant: grant(roles, node_name),
        by: Actor::Cluster,
    };
    (token, Command::CreateToken(create))
}

/// A token's grant without bounds.
pub(crate) fn grant(roles: &[Role], node_name: Option<&str>) -> Grant {
    Grant {
        roles: roles.iter().copied().collect(),
        ttl: None,
        uses_allowed: None,
        node_name: node_name.map(|name| name.parse::<NodeName>().unwrap()),
        description: String::new(),
    }
}

/// Adjacent loopback addresses that are not in use.
struct Block {
    first: u8,
    third: u8,
}

/// Outside the range of outgoing connections (Linux: 32768 to 60999), any of which would hold it.
const PORT: u16 = 15_000;

impl Block {
    fn free(nodes: usize) -> Self {
        for _ in 0..64 {
            let block = Self { third: rand::random(), first: rand::random::<u8>() & 0xf0 };
            let is_free = |at| UdpSocket::bind(block.node(at)).is_ok();
            if (0..nodes).all(is_free) {
                return block;
            }
        }
        panic!("no free block of loopback addresses");
    }

    fn node(&self, at: usize) -> SocketAddr {
        let last = self.first + u8::try_from(at + 1).unwrap();
        SocketAddr::from((Ipv4Addr::new(127, 98, self.third, last), PORT))
    }
}

/// Prints the log if `MUSTER_LOG` is set.
fn log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG") {
        // Another test of this binary may have done it.
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
    }
}
