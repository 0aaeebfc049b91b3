//! The commands of the replicated state, one variant each.
//!
//! Commands are stored in the Raft log and exchanged between versions of Muster. Fields are only
//! added, with a default; variants are only added.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use muster_types::{
    ClusterId, ConfigVersion, DurationMillis, NodeId, NodeName, OperatorRole, PublicKey, Role,
    UnixMillis,
};
use serde::{Deserialize, Serialize};

use super::authorities::Authorities;
use super::etcd::{EtcdChange, EtcdReport};
use muster_pki::token::{TokenId, Verifier};

/// A command with the time of the leader that appended it to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimestampedCommand {
    /// The leader's clock.
    #[serde(rename = "now_ms")]
    pub now: UnixMillis,
    pub command: Command,
}

/// One change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster, by its first leader. A repetition is harmless.
    FoundCluster(Box<FoundCluster>),
    /// Sets the authorities; the first ones win. A repetition is harmless.
    InstallAuthorities(Box<InstallAuthorities>),
    /// Makes a node a member. A node that is a member already is admitted without spending a use.
    Admit(Admit),
    /// Ends a membership permanently.
    Remove(Remove),
    /// A member's report about itself.
    Report(Report),
    CreateToken(CreateToken),
    RevokeToken(RevokeToken),
    /// One transition of the etcd plan.
    Etcd(EtcdChange),
    /// An audit entry for an event that changed nothing else, such as a refused join. The proposer
    /// limits the rate.
    RecordAudit(RecordAudit),
    /// No-op. Once it is applied, every earlier entry is applied too (read barrier).
    Barrier,
}

/// The author of a command, as named in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// An operator; key and role are checked again when the command is applied.
    Operator(PublicKey),
    /// A member.
    Node(NodeId),
    /// The leader's own controllers.
    Cluster,
}

/// The founders' agreement and their common configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCluster {
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
    /// At least one, preferred first.
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
    /// The leader that created the authorities.
    pub by: NodeId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    pub public_key: PublicKey,
    pub name: NodeName,
    pub role: Role,
    /// At least one, preferred first.
    pub addresses: Vec<SocketAddr>,
    pub version: String,
    /// The token that the node proved.
    pub token: TokenId,
    /// The control-plane member that checked the proof.
    pub verified_by: NodeId,
}

/// A removal, which also stops the node's etcd. It is the last step of a
/// [`RemovalPlan`](crate::RemovalPlan).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// Resolved by the caller (`ClusterState::find`), so that a retry cannot hit a newer node of
    /// the same name.
    pub node: NodeId,
    pub by: Actor,
    /// Remove the node even if etcd may lose its quorum.
    pub force: bool,
}

/// A member's report about itself. Proposed only if `ClusterState::would_change` is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub node: NodeId,
    /// At least one, preferred first.
    pub addresses: Vec<SocketAddr>,
    pub version: String,
    /// The configuration version that the member runs.
    #[serde(default)]
    pub config_version: ConfigVersion,
    /// `None` on a worker.
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

/// The permissions of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub roles: BTreeSet<Role>,
    /// Counted from the stamp of the command; `None` for a token that does not expire.
    #[serde(rename = "ttl_ms")]
    pub ttl: Option<DurationMillis>,
    /// `None` for any number.
    pub uses_allowed: Option<u32>,
    /// The only node name that may use the token; `None` for any.
    pub node_name: Option<NodeName>,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    pub token: TokenId,
    pub by: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAudit {
    /// The member that observed the event.
    pub by: NodeId,
    pub action: String,
    pub subject: String,
    pub outcome: String,
}
