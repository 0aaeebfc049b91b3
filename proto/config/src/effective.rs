//! The effective configuration: the document as it applies to one node. The last of four steps by
//! which a field of `node.yaml` takes effect:
//!
//! 1. The table in `fields` declares it: path, kind, default, patches, what a change disturbs.
//! 2. `check` parses its value, `rules` compares it with other fields.
//! 3. `patches` selects the patches of the node, `document` merges them.
//! 4. [`Config`] has it as a typed value, with the default filled in. `musterd` reads it there: at the
//!    start in daemon/src/prepare, then in daemon/src/compose.rs.
//!
//! Reads checked values only. It reports no problem, and it does not know how a value is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::SecretText;
use super::checked::CheckedDocument;
use super::fields::{cluster, machine};
use super::value::{Peer, Subnet};
use muster_types::{NodeName, OperatorRole, PublicKey, Role};

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
    /// Reads the (patched) document of the node with that name.
    pub(super) fn read(document: CheckedDocument<'_>, name: NodeName) -> Self {
        let port = document.get(&machine::PORT);
        Self {
            name,
            role: document.get(&machine::ROLE),
            token: document.get(&machine::TOKEN),
            cluster: Cluster::read(document),
            network: Network {
                port,
                subnets: document.get(&machine::SUBNETS),
                addresses: document.get(&machine::ADDRESSES),
            },
            discovery: Discovery::read(document, port),
            etcd: Etcd { binary: document.get(&machine::ETCD_BINARY) },
            state_dir: document.get(&machine::STATE_DIR),
        }
    }

    /// Settings that must be equal on every founder, keyed by their path in the document. Only
    /// public values; for the token, its id. At most 20 entries, each below 1,024 bytes.
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

impl Cluster {
    fn read(document: CheckedDocument<'_>) -> Self {
        let operator = |item: CheckedDocument<'_>| Operator {
            name: item.get(&cluster::OPERATOR_NAME),
            key: item.get(&cluster::OPERATOR_KEY),
            role: item.get(&cluster::OPERATOR_ROLE),
        };
        Self {
            name: document.get(&cluster::CLUSTER_NAME),
            expect: document.get(&cluster::EXPECT),
            founders: document.get(&cluster::FOUNDERS),
            operators: document.items(&cluster::OPERATORS).map(operator).collect(),
        }
    }
}

impl Discovery {
    /// `port` is the port of peers that are written without one.
    fn read(document: CheckedDocument<'_>, port: u16) -> Self {
        let peer = |peer: Peer| format!("{}:{}", peer.host, peer.port.unwrap_or(port));
        Self {
            mdns: document.get(&machine::MDNS),
            dns: document
                .get(&machine::DNS_DOMAIN)
                .map(|domain| Dns { domain, servers: document.get(&machine::DNS_SERVERS) }),
            static_peers: document.get(&machine::STATIC_PEERS).into_iter().map(peer).collect(),
        }
    }
}
