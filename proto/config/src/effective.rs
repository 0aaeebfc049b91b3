//! The effective configuration: the document as it applies to one node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::problem::Problems;
use super::tree::Node;
use super::value::{self, Subnet};
use super::{DEFAULT_STATE_DIR, SecretText};
use muster_types::{
    DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeName, OperatorRole, PublicKey, Role,
};

/// Effective configuration of one node: checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: NodeName,
    pub role: Role,
    /// The shared bootstrap secret, `id.secret`.
    pub token: SecretText,
    pub cluster: Cluster,
    pub network: Network,
    pub discovery: Discovery,
    pub etcd: Etcd,
    /// Directory for everything that must survive a restart. `--state-dir` overrides it.
    pub state_dir: PathBuf,
}

/// Settings that are the same for every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// Number of control-plane nodes that found the cluster: 1, 3, 5 or 7.
    pub expect: u8,
    /// The founders' names, exactly `expect` of them; empty when the document names none.
    pub founders: Vec<NodeName>,
    /// Never empty; at least one is an admin.
    pub operators: Vec<Operator>,
}

/// A person or program that may use the operator API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub name: String,
    pub key: PublicKey,
    pub role: OperatorRole,
}

/// Port and addresses at which other nodes reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// UDP (QUIC) and TCP (operator API) port.
    pub port: u16,
    /// Restricts the machine's addresses that other nodes use. Empty: all except loopback.
    pub subnets: Vec<Subnet>,
    /// Addresses that other nodes use, instead of those detected on the machine.
    pub addresses: Vec<IpAddr>,
}

/// Sources of other nodes' addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub mdns: bool,
    pub dns: Option<Dns>,
    /// Static peers as `host:port`, an IPv6 address in brackets.
    pub static_peers: Vec<String>,
}

/// Discovery by DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Queried for SRV `_muster._udp.DOMAIN`, and for A and AAAA.
    pub domain: String,
    /// DNS servers; if empty, the system's.
    pub servers: Vec<SocketAddr>,
}

/// The etcd that a control-plane node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// Path of the binary; `None` for `etcd` on the PATH.
    pub binary: Option<PathBuf>,
}

impl Config {
    /// Settings that must be equal on every founder, keyed by their path in the document. Only
    /// public values; for the token, its id. At most 20 entries, each below 1024 bytes.
    pub fn birth_fields(&self) -> BTreeMap<String, String> {
        let Cluster { name, expect, founders, operators } = &self.cluster;
        let mut named: Vec<&str> = founders.iter().map(NodeName::as_str).collect();
        named.sort_unstable();
        let token_id = self.token.expose().split('.').next().unwrap_or_default();
        let mut fields = BTreeMap::from([
            ("cluster.clusterName".to_owned(), name.clone()),
            ("cluster.expect".to_owned(), expect.to_string()),
            ("cluster.founders".to_owned(), named.join(",")),
            ("machine.token".to_owned(), token_id.to_owned()),
        ]);
        for Operator { name, key, role } in operators {
            fields.insert(format!("cluster.operators.{name}"), format!("{role} {key}"));
        }
        fields
    }
}

/// Role set by a (patched) tree, if any.
pub(super) fn role(tree: &Node) -> Option<Role> {
    read(tree, "machine.type", value::role)
}

/// Founders named in the document, each with its line.
pub(super) fn founders(tree: &Node) -> Vec<(NodeName, usize)> {
    let items = tree.at("cluster.founders").map_or(&[][..], Node::items);
    items.iter().filter_map(|n| Some((value::node_name(n.text()?).ok()?, n.line))).collect()
}

/// Reads a whole patched tree. Reports at least one problem whenever it returns `None`.
pub(super) fn config(tree: &Node, name: &NodeName, problems: &mut Problems) -> Option<Config> {
    let cluster = cluster(tree, problems);
    let machine = machine(tree, problems);
    if let Some(node) = tree.at("machine.network.hostname")
        && node.text() != Some(name.as_str())
    {
        let host = node.text().unwrap_or_default();
        let message = format!("is {host}, but this node is called {name}");
        problems.add(node.line, "machine.network.hostname", message);
    }
    let Machine { role, token, network, discovery, etcd, state_dir } = machine?;
    let (name, cluster) = (name.clone(), cluster?);
    Some(Config { name, role, token, cluster, network, discovery, etcd, state_dir })
}

/// Reads the `cluster` part and checks consistency between fields. Silently skips values that the
/// schema check has already reported.
pub(super) fn cluster(tree: &Node, problems: &mut Problems) -> Option<Cluster> {
    let wrong = problems.len();
    require(tree, "cluster.clusterName", problems);
    require(tree, "cluster.expect", problems);
    let name = read(tree, "cluster.clusterName", value::cluster_name);
    let expect = expect(tree, problems);
    let founders = founders(tree);
    if let (Some(expect), Some((_, line))) = (expect, founders.first())
        && founders.len() != usize::from(expect)
    {
        let message = format!(
            "names {} nodes, but cluster.expect is {expect}: name exactly {expect}, or none",
            founders.len()
        );
        problems.add(*line, "cluster.founders", message);
    }
    for (index, (name, line)) in founders.iter().enumerate() {
        if founders[..index].iter().any(|(earlier, _)| earlier == name) {
            let path = format!("cluster.founders[{index}]");
            problems.add(*line, &path, format!("lists {name} twice"));
        }
    }
    let operators = operators(tree, problems);
    if problems.len() > wrong {
        return None;
    }
    let founders = founders.into_iter().map(|(name, _)| name).collect();
    Some(Cluster { name: name?, expect: expect?, founders, operators })
}

fn expect(tree: &Node, problems: &mut Problems) -> Option<u8> {
    let node = tree.at("cluster.expect")?;
    let expect: u8 = node.text()?.parse().ok().filter(|n| (1..=7).contains(n))?;
    if expect.is_multiple_of(2) {
        let message = format!(
            "is {expect}: an even number survives no more failures than {}; use 1, 3, 5 or 7",
            expect - 1
        );
        problems.add(node.line, "cluster.expect", message);
        return None;
    }
    Some(expect)
}

fn operators(tree: &Node, problems: &mut Problems) -> Vec<Operator> {
    let path = "cluster.operators";
    let items = tree.at(path).map_or(&[][..], Node::items);
    if items.is_empty() && tree.at(path).is_none_or(Node::is_list) {
        let message =
            "is empty: no operator could use the cluster; create a key with `musterctl init`";
        problems.add(line_of(tree, path), path, message);
    }
    let mut found: Vec<Operator> = Vec::new();
    let mut complete = !items.is_empty();
    for (index, item) in items.iter().enumerate() {
        let here = format!("{path}[{index}]");
        for field in ["name", "publicKey", "role"] {
            if item.is_map() && item.get(field).is_none() {
                problems.add(item.line, &format!("{here}.{field}"), "is missing");
            }
        }
        let (name, key, role) = (
            read(item, "name", value::operator_name),
            read(item, "publicKey", value::public_key),
            read(item, "role", value::operator_role),
        );
        let (Some(name), Some(key), Some(role)) = (name, key, role) else {
            complete = false;
            continue;
        };
        if found.iter().any(|earlier| earlier.name == name) {
            problems.add(item.line, &here, format!("lists {name} twice"));
        }
        if let Some(earlier) = found.iter().find(|earlier| earlier.key == key) {
            problems.add(item.line, &here, format!("has the same key as {}", earlier.name));
        }
        found.push(Operator { name, key, role });
    }
    if complete && found.iter().all(|operator| operator.role != OperatorRole::Admin) {
        let message = "has no admin: no operator could change the cluster";
        problems.add(line_of(tree, path), path, message);
    }
    found
}

pub(super) struct Machine {
    role: Role,
    token: SecretText,
    network: Network,
    discovery: Discovery,
    etcd: Etcd,
    state_dir: PathBuf,
}

const PORT: &str = "machine.network.port";

/// Reads the `machine` part; see [`cluster`].
pub(super) fn machine(tree: &Node, problems: &mut Problems) -> Option<Machine> {
    let wrong = problems.len();
    require(tree, "machine.type", problems);
    require(tree, "machine.token", problems);
    if tree.at("machine.discovery.dns").is_some() {
        require(tree, "machine.discovery.dns.domain", problems);
    }
    let etcd = Etcd { binary: read(tree, "machine.etcd.binary", value::path) };
    let network = Network {
        port: read(tree, PORT, |text| text.parse::<u16>().map_err(|e| e.to_string()))
            .unwrap_or(DEFAULT_PORT),
        subnets: read_list(tree, "machine.network.subnets", str::parse::<Subnet>),
        addresses: read_list(tree, "machine.network.addresses", value::address),
    };
    if [ETCD_CLIENT_PORT, ETCD_PEER_PORT].contains(&network.port) {
        let message = format!("is {}, which etcd uses: choose another", network.port);
        problems.add(line_of(tree, PORT), PORT, message);
    }
    let token = tree.at("machine.token").and_then(Node::text);
    let machine = Machine {
        role: role(tree)?,
        token: SecretText::new(token?.to_owned()),
        discovery: discovery(tree, network.port),
        network,
        etcd,
        state_dir: read(tree, "machine.stateDir", value::path)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR)),
    };
    (problems.len() == wrong).then_some(machine)
}

fn discovery(tree: &Node, port: u16) -> Discovery {
    let peers = read_list(tree, "machine.discovery.static", value::peer);
    Discovery {
        mdns: tree.at("machine.discovery.mdns").and_then(Node::text).is_none_or(is_true),
        dns: read(tree, "machine.discovery.dns.domain", value::domain).map(|domain| Dns {
            domain,
            servers: read_list(tree, "machine.discovery.dns.servers", value::dns_server),
        }),
        static_peers: peers
            .into_iter()
            .map(|(host, given)| format!("{host}:{}", given.unwrap_or(port)))
            .collect(),
    }
}

fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

fn read<T>(tree: &Node, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    parse(tree.at(path)?.text()?).ok()
}

fn read_list<T>(tree: &Node, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let items = tree.at(path).map_or(&[][..], Node::items);
    items.iter().filter_map(|item| parse(item.text()?).ok()).collect()
}

/// Reports a required field that is missing.
fn require(tree: &Node, path: &str, problems: &mut Problems) {
    if tree.at(path).is_none() && tree.can_contain(path) {
        problems.add(line_of(tree, path), path, "is missing");
    }
}

/// Line of the field, or of its nearest existing parent mapping.
fn line_of(tree: &Node, path: &str) -> usize {
    let mut node = tree;
    for key in path.split('.') {
        match node.get(key) {
            Some(child) => node = child,
            None => break,
        }
    }
    node.line
}
