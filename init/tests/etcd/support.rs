//! Test cluster: members on loopback addresses, each with its own unit, certificates and directory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use muster_init::supervisor::Policy;
use muster_init::units::etcd::client::{Deadlines, EtcdClient, MemberClient, Tls};
use muster_init::units::etcd::dir::EtcdDir;
use muster_init::units::etcd::{
    Authorities, Credential, Credentials, EtcdSpec, EtcdStatus, EtcdUnit, InitialCluster, Tool,
    Tuning, credentials, locate, policy,
};
use muster_pki::authority::{self, AuthorityKind};
use muster_pki::leaf::{self, KeyPair, Profile};
use muster_types::etcd::{EtcdGeneration, EtcdPeer, InitialClusterState, url};
use muster_types::{ClusterId, NodeName};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Timeout of every wait in these tests.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

/// A cluster's etcd authority.
pub(crate) struct Authority(authority::Authority);

impl Authority {
    pub(crate) fn new() -> Self {
        let cluster_id = ClusterId::from_bytes([7; 32]);
        // Old enough to have issued certificates that expire now.
        let created = now() - 2 * leaf::ETCD_LIFETIME;
        Self(authority::Authority::create(AuthorityKind::Etcd, "test", &cluster_id, created))
    }

    pub(crate) fn authorities(&self) -> Authorities {
        Authorities::new(vec![self.0.certificate().clone()]).expect("one certificate")
    }

    /// Issues a client certificate.
    pub(crate) fn client(&self, name: &str) -> Result<Credential> {
        let lifetime = Duration::from_hours(1);
        self.leaf(&Profile::EtcdClient { common_name: name.to_owned(), lifetime }, now())
    }

    /// Issues a member's credentials.
    pub(crate) fn credentials(&self, address: IpAddr) -> Result<Credentials> {
        self.issued(address, now())
    }

    /// Issues a member's credentials that expire after `after`.
    pub(crate) fn expiring(&self, address: IpAddr, after: Duration) -> Result<Credentials> {
        self.issued(address, now() + after - leaf::ETCD_LIFETIME)
    }

    fn issued(&self, address: IpAddr, at: SystemTime) -> Result<Credentials> {
        let (name, addresses) = (TestCluster::name(1), vec![address]);
        Ok(Credentials {
            authorities: self.authorities(),
            server: self.leaf(
                &Profile::EtcdServer { name: name.clone(), addresses: addresses.clone() },
                at,
            )?,
            peer: self.leaf(&Profile::EtcdPeer { name, addresses }, at)?,
            client: self.client("muster")?,
        })
    }

    fn leaf(&self, profile: &Profile, at: SystemTime) -> Result<Credential> {
        let key = KeyPair::generate();
        Ok(Credential::from_leaf(&leaf::issue(&self.0, profile, &key.public(), at)?, &key))
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// One node's etcd.
pub(crate) struct Node {
    pub(crate) spec: EtcdSpec,
    pub(crate) dir: EtcdDir,
    pub(crate) handle: EtcdUnit,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    pub(crate) fn peer(&self) -> EtcdPeer {
        EtcdPeer { name: self.spec.name.clone(), url: url(self.spec.peer) }
    }

    pub(crate) async fn start(&self) -> Result<()> {
        Ok(self.handle.set(self.spec.clone()).await?)
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        mut is: impl FnMut(&EtcdStatus) -> bool,
    ) -> Result<EtcdStatus> {
        let mut status = self.handle.status();
        let found = timeout(TIMEOUT, status.wait_for(|status| is(status))).await;
        if let Ok(found) = found {
            return Ok(found?.clone());
        }
        let log = std::fs::read_to_string(self.dir.log().join("etcd.log")).unwrap_or_default();
        let tail = log.lines().rev().take(15).collect::<Vec<_>>().join("\n");
        let status = self.handle.status().borrow().clone();
        Err(anyhow!("{}: waited for {what}: {status:?}\n{tail}", self.spec.name))
    }

    pub(crate) async fn until_healthy(&self) -> Result<EtcdStatus> {
        self.until("etcd to serve", |status| status.unit.health.is_healthy()).await
    }

    pub(crate) fn pid(&self) -> Result<rustix::process::Pid> {
        let pid = self.handle.status().borrow().unit.pid.context("it runs")?;
        rustix::process::Pid::from_raw(pid.cast_signed()).context("a pid")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.data(self.spec.generation)
    }

    pub(crate) fn member(&self) -> Result<MemberClient> {
        let credentials = &self.spec.credentials;
        let tls = Tls::new(&credentials.authorities, &credentials.client)?;
        Ok(MemberClient::new(self.spec.client, &tls, Deadlines::default()))
    }

    /// Stops etcd and the unit.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.stop.cancel();
        timeout(TIMEOUT, self.tasks.join_next()).await.context("the unit ends")?;
        Ok(())
    }
}

/// Factory for the nodes of one cluster.
pub(crate) struct TestCluster {
    pub(crate) authority: Authority,
    pub(crate) directory: TempDir,
    network: u8,
    pub(crate) policy: Policy,
    pub(crate) tuning: Tuning,
}

/// Next free network number. Tests share the loopback network, so each test and each process gets
/// its own part.
static NEXT_NETWORK: AtomicU8 = AtomicU8::new(0);

impl TestCluster {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            authority: Authority::new(),
            directory: TempDir::new()?,
            network: NEXT_NETWORK.fetch_add(1, Ordering::Relaxed),
            policy: policy(),
            tuning: Tuning::default(),
        })
    }

    pub(crate) fn address(&self, number: u8) -> IpAddr {
        let process = std::process::id().to_le_bytes()[0];
        Ipv4Addr::new(127, 88, process ^ self.network, number).into()
    }

    pub(crate) fn name(number: u8) -> NodeName {
        format!("cp-{number}").parse().expect("a DNS label")
    }

    /// Creates a node with free ports; does not start it.
    pub(crate) async fn node(&mut self, number: u8) -> Result<Node> {
        let address = self.address(number);
        let [peer, client] = [free_port(address)?, free_port(address)?];
        let dir = EtcdDir::new(self.directory.path().join(format!("{number}/etcd")));
        let (handle, task) = EtcdUnit::new(dir.clone(), self.policy);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(task.run(stop.clone()));
        let spec = EtcdSpec {
            binary: locate(Tool::Etcd, None).await?,
            generation: EtcdGeneration(1),
            name: Self::name(number),
            initial: InitialCluster {
                state: InitialClusterState::New,
                token: "founding".to_owned(),
                members: Vec::new(),
            },
            known_to_cluster: false,
            peer,
            client,
            tuning: self.tuning.clone(),
            credentials: self.authority.credentials(address)?,
        };
        Ok(Node { spec, dir, handle, stop, tasks })
    }

    /// Creates founders that list each other; starts none.
    pub(crate) async fn founders(&mut self, count: u8) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for number in 1..=count {
            nodes.push(self.node(number).await?);
        }
        let members: Vec<_> = nodes.iter().map(Node::peer).collect();
        for node in &mut nodes {
            node.spec.initial.members.clone_from(&members);
        }
        Ok(nodes)
    }

    pub(crate) fn client(&self, nodes: &[Node]) -> Result<EtcdClient> {
        let tls = Tls::new(&self.authority.authorities(), &self.authority.client("test")?)?;
        let endpoints: Vec<_> = nodes.iter().map(|node| node.spec.client).collect();
        EtcdClient::new(&endpoints, &tls, Deadlines::default()).context("there are nodes")
    }

    /// Runs a stock etcdctl with credentials in files, like an operator.
    pub(crate) async fn etcdctl(&self, nodes: &[Node], arguments: &[&str]) -> Result<Output> {
        let ca = self.directory.path().join("ca.crt");
        let own = self.directory.path().join("etcdctl.pem");
        let leaf = self.authority.client("etcdctl")?;
        let chain = credentials::chain_pem(self.authority.authorities().certificates());
        std::fs::write(&ca, chain)?;
        std::fs::write(&own, leaf.to_pem().as_bytes())?;
        let endpoints: Vec<_> =
            nodes.iter().map(|n| format!("https://{}", n.spec.client)).collect();
        let output = tokio::process::Command::new(locate(Tool::Etcdctl, None).await?.path)
            .env("ETCDCTL_API", "3")
            .args(["--cacert", &ca.to_string_lossy()])
            .args(["--cert", &own.to_string_lossy(), "--key", &own.to_string_lossy()])
            .args(["--endpoints", &endpoints.join(",")])
            .args(arguments)
            .kill_on_drop(true)
            .output();
        Ok(timeout(TIMEOUT, output).await??)
    }
}

pub(crate) async fn start_all(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        node.start().await?;
    }
    for node in nodes {
        node.until_healthy().await?;
    }
    Ok(())
}

pub(crate) async fn end_all(nodes: Vec<Node>) -> Result<()> {
    let mut ends = JoinSet::new();
    for node in nodes {
        ends.spawn(node.end());
    }
    ends.join_all().await.into_iter().collect()
}

/// Repeats `attempt` until it succeeds; on timeout returns its last error.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let found = timeout(TIMEOUT, async {
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        loop {
            tries.tick().await;
            match attempt().await {
                Ok(found) => return found,
                Err(error) => last = Some(error),
            }
        }
    })
    .await;
    found.map_err(|_| {
        last.unwrap_or_else(|| anyhow!("never answered")).context(format!("waited for {what}"))
    })
}

/// A free port outside the range of outgoing connections (Linux: 32768 to 60999), so that it is
/// still free when etcd starts.
fn free_port(address: IpAddr) -> Result<SocketAddr> {
    let mut tries = (0..64).map(|_| (address, rand::random_range(10_000..30_000)).into());
    let found = tries.find(|socket: &SocketAddr| TcpListener::bind(socket).is_ok());
    found.with_context(|| format!("no free port on {address}"))
}
