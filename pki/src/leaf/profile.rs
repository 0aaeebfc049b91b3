//! Profiles of leaf certificates: usage, names and lifetime of each kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use muster_types::{NodeId, NodeName, Role};
use rcgen::ExtendedKeyUsagePurpose;

use super::{ETCD_LIFETIME, NODE_LIFETIME};
use crate::authority::AuthorityKind;

/// DNS name in every control-plane node's certificate, and in no worker's.
pub const CONTROL_PLANE_NAME: &str = "control-plane.muster.internal";

/// DNS name of a node in its certificate.
pub fn node_dns_name(id: &NodeId) -> String {
    format!("{id}.nodes.muster.internal")
}

/// Purpose and content of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A member, as client and server of `muster-node/1` and, on the control plane, of the operator
    /// API. A server shows its certificate before it knows the client. So this one contains only
    /// the key and the names that peers check: no node name, no address, no cluster.
    Node { id: NodeId, role: Role },
    /// An etcd member towards its clients. Also a client certificate, because etcd's gateway dials
    /// the server with the server's certificate.
    EtcdServer { name: NodeName, addresses: Vec<IpAddr> },
    /// An etcd member towards the other members.
    EtcdPeer { name: NodeName, addresses: Vec<IpAddr> },
    /// A client of etcd. etcd takes the common name as the user name.
    EtcdClient { common_name: String, lifetime: Duration },
}

impl Profile {
    /// Name of the profile in listings.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Node { .. } => "node",
            Self::EtcdServer { .. } => "etcd-server",
            Self::EtcdPeer { .. } => "etcd-peer",
            Self::EtcdClient { .. } => "etcd-client",
        }
    }

    /// The authority that issues it.
    pub const fn authority(&self) -> AuthorityKind {
        match self {
            Self::Node { .. } => AuthorityKind::Machine,
            Self::EtcdServer { .. } | Self::EtcdPeer { .. } | Self::EtcdClient { .. } => {
                AuthorityKind::Etcd
            }
        }
    }

    pub(super) fn lifetime(&self) -> Duration {
        match self {
            Self::Node { .. } => NODE_LIFETIME,
            Self::EtcdServer { .. } | Self::EtcdPeer { .. } => ETCD_LIFETIME,
            Self::EtcdClient { lifetime, .. } => *lifetime,
        }
    }

    pub(super) fn common_name(&self) -> String {
        match self {
            Self::Node { id, .. } => id.to_string(),
            Self::EtcdServer { name, .. } | Self::EtcdPeer { name, .. } => name.to_string(),
            Self::EtcdClient { common_name, .. } => common_name.clone(),
        }
    }

    /// The node's own addresses.
    pub(super) fn node_addresses(&self) -> &[IpAddr] {
        match self {
            Self::EtcdServer { addresses, .. } | Self::EtcdPeer { addresses, .. } => addresses,
            Self::Node { .. } | Self::EtcdClient { .. } => &[],
        }
    }

    /// The addresses that the certificate names: etcd's also name the loopback ones.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::EtcdServer { addresses, .. } | Self::EtcdPeer { addresses, .. } => {
                let mut all = addresses.clone();
                for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                    if !all.contains(&loopback) {
                        all.push(loopback);
                    }
                }
                all
            }
            Self::Node { .. } | Self::EtcdClient { .. } => Vec::new(),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Node { id, role } => {
                let mut names = vec![node_dns_name(id)];
                if *role == Role::ControlPlane {
                    names.push(CONTROL_PLANE_NAME.to_owned());
                }
                names
            }
            Self::EtcdServer { name, .. } | Self::EtcdPeer { name, .. } => {
                vec![name.to_string(), "localhost".to_owned()]
            }
            Self::EtcdClient { .. } => Vec::new(),
        }
    }

    pub(super) fn usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Node { .. } | Self::EtcdServer { .. } | Self::EtcdPeer { .. } => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Self::EtcdClient { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}
