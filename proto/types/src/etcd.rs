//! Description of an etcd member: the words that the replicated plan and the etcd unit share. Knows
//! neither the plan nor the process.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ETCD_PEER_PORT, NodeName};

/// Counts the etcd members that a node has been. A member that lost its data or was removed never
/// comes back: its node becomes a new member with the next generation. Encoded as the bare number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EtcdGeneration(pub u32);

impl EtcdGeneration {
    /// The generation of a node's first member.
    pub const FIRST: Self = Self(0);

    /// The next generation; `None` after the last representable one.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

impl fmt::Display for EtcdGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// etcd's id of a member. Text has it in hexadecimal, like `etcdctl`; encoded as the bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EtcdMemberId(pub u64);

impl fmt::Display for EtcdMemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for EtcdMemberId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// etcd's `--initial-cluster-state`: bootstrap a cluster or join one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitialClusterState {
    /// A founder; all founders start with the same members and token.
    New,
    /// Already added to a running cluster.
    Existing,
}

/// State of the data directory of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataState {
    /// Never started on this node.
    Absent,
    /// Started at least once, and still there.
    Present,
    /// Started once, and now missing or incomplete.
    Lost,
}

/// Name and peer URL of an etcd member: an item of `--initial-cluster`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EtcdPeer {
    pub name: NodeName,
    #[serde(rename = "peer_url")]
    pub url: String,
}

impl fmt::Display for EtcdPeer {
    /// `name=url`, as `--initial-cluster` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, url } = self;
        write!(f, "{name}={url}")
    }
}

/// The list as `--initial-cluster` takes it.
pub fn initial_cluster(peers: &[EtcdPeer]) -> String {
    peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The URL of an etcd client or peer address.
pub fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// The etcd peer URL of a node with this address.
pub fn peer_url(node: SocketAddr) -> String {
    url(SocketAddr::new(node.ip(), ETCD_PEER_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_id_reads_back_what_it_prints() {
        let id = EtcdMemberId(0x8e9e_05c5_2164_694d);
        assert_eq!(id.to_string(), "8e9e05c52164694d");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&EtcdMemberId(10)).unwrap(), "10");
    }

    #[test]
    fn peers_are_listed_as_etcd_takes_them() {
        let peer = |name: &str, node: &str| EtcdPeer {
            name: name.parse().unwrap(),
            url: peer_url(node.parse().unwrap()),
        };
        let peers = [peer("cp-1", "192.0.2.1:50000"), peer("cp-2", "[2001:db8::2]:50000")];
        let listed = "cp-1=https://192.0.2.1:2380,cp-2=https://[2001:db8::2]:2380";
        assert_eq!(initial_cluster(&peers), listed);
    }

    #[test]
    fn generations_end() {
        assert_eq!(EtcdGeneration::FIRST.next(), Some(EtcdGeneration(1)));
        assert_eq!(EtcdGeneration(u32::MAX).next(), None);
    }
}
