//! Everything that can be asked of the cluster's state: one variant per command.
//!
//! Commands are stored in the Raft log and travel between versions of Muster: fields are only ever
//! added, with a default; variants are only ever added.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use muster_types::{ClusterId, NodeId, NodeName, OperatorRole, PublicKey, Role};
use serde::{Deserialize, Serialize};

use super::authorities::Authorities;
use super::etcd::{EtcdChange, EtcdReport};
use muster_pki::token::{TokenId, Verifier};

/// A command with the time of the leader that put it into the log, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    pub now_ms: i64,
    pub command: Command,
}

/// One change of the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster, by its first leader. The same again is harmless.
    Found(Box<Found>),
    /// The first authorities win; the same again is harmless.
    InstallAuthorities(Box<InstallAuthorities>),
    /// Makes a node a member. The same node again is admitted without spending a use.
    Admit(Admit),
    /// Ends a membership for ever.
    Remove(Remove),
    /// What a member says of itself.
    Report(Report),
    CreateToken(CreateToken),
    RevokeToken(RevokeToken),
    /// One transition of the etcd plan.
    Etcd(EtcdChange),
    SetLabels(SetLabels),
    /// Something worth keeping that changed nothing else: a refused join. The proposer bounds the
    /// rate.
    RecordAudit(RecordAudit),
    /// Changes nothing: whoever had it carried out knows that all before it is applied.
    Barrier,
}

/// Who asks: named in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// An operator; key and role are checked again when the command is applied.
    Operator(PublicKey),
    /// A member.
    Node(NodeId),
    /// The leader's own controllers.
    Cluster,
}

/// What the founders agreed on, and what their common configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub cluster_id: ClusterId,
    pub cluster_name: String,
    /// The encoded `muster.hello.v1.BirthCertificate`.
    pub certificate: Vec<u8>,
    /// The certificate's founders, in its order.
    pub founders: Vec<Founder>,
    pub operators: Vec<Operator>,
    pub token: TokenId,
    pub verifier: Verifier,
    /// SHA-256 of the configuration document: version 1.
    pub config_digest: [u8; 32],
}

/// A founder, as the birth certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    pub public_key: PublicKey,
    pub name: NodeName,
    /// Best first, at least one.
    pub addresses: Vec<SocketAddr>,
}

/// A person or a machine that may use the operator API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    pub public_key: PublicKey,
    pub name: String,
    pub role: OperatorRole,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallAuthorities {
    pub authorities: Authorities,
    /// The leader that made them.
    pub by: NodeId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    /// Best first, at least one.
    pub addresses: Vec<SocketAddr>,
    pub version: String,
    /// The token that the node proved.
    pub token: TokenId,
    /// The control-plane member that checked the proof.
    pub verified_by: NodeId,
}

/// A node that leaves takes its etcd with it. Where the voters left could not then remove its
/// member by a majority of the old list (two voters, say), the caller has etcd remove it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The caller resolves names (`ClusterState::find`), so that a retry cannot hit a newer node
    /// of the same name.
    pub node: NodeId,
    pub by: Actor,
    /// Remove it although etcd may lose its quorum.
    pub force: bool,
}

/// What a member says of itself. Nothing is proposed that `ClusterState::would_change` denies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub node: NodeId,
    /// Best first, at least one.
    pub addresses: Vec<SocketAddr>,
    pub version: String,
    /// The version of the configuration that it runs; 0 if it does not say.
    #[serde(default)]
    pub config_version: u64,
    /// Control-plane nodes only.
    #[serde(default)]
    pub etcd: Option<EtcdReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateToken {
    pub token: TokenId,
    pub verifier: Verifier,
    pub grant: Grant,
    pub by: Actor,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub roles: BTreeSet<Role>,
    /// From the moment the command is applied; none: it does not expire.
    pub ttl_ms: Option<u64>,
    /// None: any number.
    pub uses_allowed: Option<u32>,
    /// The only name that may use it.
    pub node_name: Option<NodeName>,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    pub token: TokenId,
    pub by: Actor,
}

/// Replaces all labels of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLabels {
    pub node: NodeId,
    pub labels: BTreeMap<String, String>,
    pub by: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAudit {
    /// The member that saw it.
    pub by: NodeId,
    pub action: String,
    pub subject: String,
    pub outcome: String,
}
