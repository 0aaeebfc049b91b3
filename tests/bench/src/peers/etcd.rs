//! etcd alone: members on hosts of the lab with static configuration, mutual TLS and etcd's own
//! defaults. Also clients of any etcd, including Muster's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_init::units::etcd::client::{Deadlines, MemberClient, MemberHealth, Tls};
use muster_init::units::etcd::credentials::{CredentialPaths, write};
use muster_init::units::etcd::{Authorities, Credential, Credentials};
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::leaf::{self, KeyPair, Profile};
use muster_pki::{CertificateDer, Zeroizing};
use muster_types::{ClusterId, NodeName};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::sleep;

use muster_tests::lab::{Host, Lab, Process};
use muster_tests::operator::now;

/// Client port.
pub const CLIENT: u16 = 2379;
const PEER: u16 = 2380;

/// Interval between two probes of a member that does not serve yet.
const POLL: Duration = Duration::from_millis(5);

/// etcd member.
#[derive(Debug)]
pub struct Node {
    pub name: NodeName,
    pub host: Host,
    pub process: Option<Process>,
}

/// etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    pub nodes: Vec<Node>,
    authority: Authority,
}

impl Etcd {
    /// Makes hosts `etcd-1…` with certificates. Starts nothing.
    pub fn plan(lab: &Lab, members: u8) -> Result<Self> {
        let cluster = ClusterId::from_bytes([7; 32]);
        let authority = Authority::create(AuthorityKind::Etcd, "bench", &cluster, now());
        let mut nodes = Vec::new();
        for number in 1..=members {
            let name = format!("etcd-{number}");
            let host = lab.host(&name)?;
            nodes.push(Node { name: name.parse()?, host, process: None });
        }
        let etcd = Self { nodes, authority };
        for node in &etcd.nodes {
            write(&CredentialPaths::in_dir(node.host.dir()), &etcd.credentials(node)?)?;
        }
        Ok(etcd)
    }

    fn issue(&self, profile: &Profile) -> Result<Credential> {
        let key = KeyPair::generate();
        Ok(Credential::from_leaf(
            &leaf::issue(&self.authority, profile, &key.public(), now())?,
            &key,
        ))
    }

    fn authorities(&self) -> Result<Authorities> {
        Authorities::new(vec![self.authority.certificate().clone()]).context("there is one")
    }

    fn credentials(&self, node: &Node) -> Result<Credentials> {
        let (name, addresses) = (node.name.clone(), vec![node.host.address().into()]);
        let lifetime = Duration::from_hours(1);
        let server = Profile::EtcdServer { name: name.clone(), addresses: addresses.clone() };
        Ok(Credentials {
            authorities: self.authorities()?,
            server: self.issue(&server)?,
            peer: self.issue(&Profile::EtcdPeer { name, addresses })?,
            client: self
                .issue(&Profile::EtcdClient { common_name: "bench".to_owned(), lifetime })?,
        })
    }

    /// Returns client credentials and trust for this cluster.
    pub fn tls(&self) -> Result<Tls> {
        let lifetime = Duration::from_hours(1);
        let profile = Profile::EtcdClient { common_name: "bench".to_owned(), lifetime };
        Ok(Tls::new(&self.authorities()?, &self.issue(&profile)?)?)
    }

    /// Starts a member with the settings that etcd's guide recommends for static members and TLS.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let members: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("{}=https://{}:{PEER}", node.name, node.host.address()))
            .collect();
        let node = &mut self.nodes[at];
        let (address, paths) = (node.host.address(), CredentialPaths::in_dir(node.host.dir()));
        let mut command = node.host.command("etcd");
        let mut set = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        set("name", node.name.as_str());
        set("data-dir", &node.host.dir().join("data").display().to_string());
        for (what, port) in [("peer", PEER), ("client", CLIENT)] {
            set(&format!("listen-{what}-urls"), &format!("https://{address}:{port}"));
        }
        set("initial-advertise-peer-urls", &format!("https://{address}:{PEER}"));
        set("advertise-client-urls", &format!("https://{address}:{CLIENT}"));
        set("initial-cluster", &members.join(","));
        set("initial-cluster-state", "new");
        set("initial-cluster-token", "bench");
        for (side, own) in [("", &paths.server), ("peer-", &paths.peer)] {
            set(&format!("{side}cert-file"), &own.display().to_string());
            set(&format!("{side}key-file"), &own.display().to_string());
            set(&format!("{side}trusted-ca-file"), &paths.authorities.display().to_string());
            set(&format!("{side}client-cert-auth"), "true");
        }
        set("logger", "zap");
        node.process = Some(node.host.spawn(command, "etcd")?);
        Ok(())
    }

    pub fn start_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|at| self.start(at))
    }

    /// Kills a member, like a power cut.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.nodes[at].process.take().context("the member is not running")?.kill()
    }

    /// Returns the client addresses of the members, by name.
    pub fn endpoints(&self) -> BTreeMap<String, SocketAddr> {
        let endpoint = |node: &Node| {
            (node.name.to_string(), SocketAddr::new(node.host.address().into(), CLIENT))
        };
        self.nodes.iter().map(endpoint).collect()
    }
}

/// Returns the client address of a Muster node's etcd.
pub fn endpoint_of(host: &Host) -> SocketAddr {
    SocketAddr::new(host.address().into(), CLIENT)
}

/// Returns the credentials of a Muster node's etcd, which a client may use too. `None` before they
/// are written.
pub fn tls_of(host: &Host) -> Result<Option<Tls>> {
    let paths = CredentialPaths::in_dir(&host.dir().join("state/etcd"));
    let read = |path: &Path| std::fs::read(path).ok();
    let (Some(own), Some(authorities)) = (read(&paths.server), read(&paths.authorities)) else {
        return Ok(None);
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&own).collect::<Result<_, _>>().context("server.pem")?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&own).context("key in server.pem")?;
    let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
    let trusted: Vec<_> =
        CertificateDer::pem_slice_iter(&authorities).collect::<Result<_, _>>().context("ca.crt")?;
    let trusted = Authorities::new(trusted).context("ca.crt is empty")?;
    Ok(Some(Tls::new(&trusted, &Credential::new(chain, key))?))
}

/// Returns a client of one member.
pub fn member(endpoint: SocketAddr, tls: &Tls) -> MemberClient {
    MemberClient::new(endpoint, tls, Deadlines::default())
}

/// Waits until a member answers a linearizable read.
pub async fn until_serving(endpoint: SocketAddr, tls: &Tls) -> Instant {
    // A call to a member that has just started to listen must not wait long.
    let call = Duration::from_millis(500);
    let member = MemberClient::new(endpoint, tls, Deadlines { call, ..Deadlines::default() });
    loop {
        if let Ok(MemberHealth::Serving) = member.health().await {
            return Instant::now();
        }
        sleep(POLL).await;
    }
}

/// Returns the name of the leading member.
pub async fn leader(endpoints: &BTreeMap<String, SocketAddr>, tls: &Tls) -> Result<String> {
    for (name, endpoint) in endpoints {
        let status = member(*endpoint, tls).status().await?;
        if status.leader == Some(status.id) {
            return Ok(name.clone());
        }
    }
    anyhow::bail!("no member of etcd leads")
}
