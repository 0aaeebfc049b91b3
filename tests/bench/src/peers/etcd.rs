//! etcd alone: members on hosts of the lab with static configuration and mutual TLS everywhere,
//! with etcd's own defaults. And clients of any etcd, Muster's included.

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

/// The port for clients.
pub const CLIENT: u16 = 2379;
const PEER: u16 = 2380;

/// Between two looks at a member that does not serve yet.
const POLL: Duration = Duration::from_millis(5);

/// One member.
#[derive(Debug)]
pub struct Node {
    pub name: NodeName,
    pub host: Host,
    pub process: Option<Process>,
}

/// A cluster of etcd.
#[derive(Debug)]
pub struct Etcd {
    pub nodes: Vec<Node>,
    authority: Authority,
}

impl Etcd {
    /// Hosts `etcd-1…` with certificates; nothing is started.
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

    /// What a client of this cluster presents and trusts.
    pub fn tls(&self) -> Result<Tls> {
        let lifetime = Duration::from_hours(1);
        let profile = Profile::EtcdClient { common_name: "bench".to_owned(), lifetime };
        Ok(Tls::new(&self.authorities()?, &self.issue(&profile)?)?)
    }

    /// Starts a member, with what a guide to etcd with static members and TLS tells people to set.
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

    /// As a power cut.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.nodes[at].process.take().context("it does not run")?.kill()
    }

    /// Where clients reach the members, by name.
    pub fn endpoints(&self) -> BTreeMap<String, SocketAddr> {
        let endpoint = |node: &Node| {
            (node.name.to_string(), SocketAddr::new(node.host.address().into(), CLIENT))
        };
        self.nodes.iter().map(endpoint).collect()
    }
}

/// Where the etcd of a Muster node is reached.
pub fn endpoint_of(host: &Host) -> SocketAddr {
    SocketAddr::new(host.address().into(), CLIENT)
}

/// What a Muster node's etcd presents and trusts, which is good for a client too; none before it
/// has been written.
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

/// A client of one member.
pub fn member(endpoint: SocketAddr, tls: &Tls) -> MemberClient {
    MemberClient::new(endpoint, tls, Deadlines::default())
}

/// Waits until a member answers a linearizable read.
pub async fn until_serving(endpoint: SocketAddr, tls: &Tls) -> Instant {
    // A call that meets a member which has just begun to listen must not wait for long.
    let call = Duration::from_millis(500);
    let member = MemberClient::new(endpoint, tls, Deadlines { call, ..Deadlines::default() });
    loop {
        if let Ok(MemberHealth::Serving) = member.health().await {
            return Instant::now();
        }
        sleep(POLL).await;
    }
}

/// Which of these members leads.
pub async fn leader(endpoints: &BTreeMap<String, SocketAddr>, tls: &Tls) -> Result<String> {
    for (name, endpoint) in endpoints {
        let status = member(*endpoint, tls).status().await?;
        if status.leader == Some(status.id) {
            return Ok(name.clone());
        }
    }
    anyhow::bail!("no member of etcd leads")
}
