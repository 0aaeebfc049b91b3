//! Founding: the first command of a cluster.

use std::collections::BTreeSet;

use muster_types::{ClusterId, ConfigVersion, NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::command::{FoundCluster, Founder};
use super::members::check_addresses;
use super::{ApplyContext, ClusterState, Member, Outcome, Refusal, RefusalKind, limits};
use muster_pki::token::TokenId;

/// The founding record of the cluster; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    pub cluster_id: ClusterId,
    pub cluster_name: String,
    /// The encoded `muster.hello.v1.BirthCertificate`.
    pub certificate: Vec<u8>,
    /// The founders' ids in the certificate's order; some may have been removed since.
    pub founders: Vec<NodeId>,
    /// The founding token.
    pub token: TokenId,
    /// SHA-256 of configuration version 1.
    pub config_digest: [u8; 32],
    #[serde(rename = "founded_ms")]
    pub founded_at: UnixMillis,
}

impl ClusterState {
    pub(super) fn found_cluster(
        &mut self,
        at: ApplyContext,
        found: &FoundCluster,
    ) -> Result<Outcome, Refusal> {
        if let Some(birth) = &self.birth {
            if birth.cluster_id == found.cluster_id {
                return Ok(Outcome::Unchanged);
            }
            return Err(Refusal::new(
                RefusalKind::AlreadyFounded,
                format!(
                    "this group is already the cluster {}; a birth certificate of the cluster {} \
                     cannot found it again",
                    birth.cluster_id.short(),
                    found.cluster_id.short()
                ),
            ));
        }
        check(found)?;
        for founder in &found.founders {
            let member = founding_member(at, found, founder);
            self.etcd.add_founder(at, &member);
            self.members.insert(member);
        }
        for operator in &found.operators {
            self.operators.insert(operator.public_key, operator.clone());
        }
        self.tokens.install_founding(at, found.token.clone(), found.verifier.clone());
        self.birth = Some(Birth {
            cluster_id: found.cluster_id,
            cluster_name: found.cluster_name.clone(),
            certificate: found.certificate.clone(),
            founders: found.founders.iter().map(|f| super::node_id(&f.public_key)).collect(),
            token: found.token.clone(),
            config_digest: found.config_digest,
            founded_at: at.now,
        });
        Ok(Outcome::Done)
    }
}

fn founding_member(at: ApplyContext, found: &FoundCluster, founder: &Founder) -> Member {
    Member {
        id: super::node_id(&founder.public_key),
        public_key: founder.public_key,
        name: founder.name.clone(),
        role: muster_types::Role::ControlPlane,
        addresses: founder.addresses.clone(),
        version: String::new(),
        config_version: ConfigVersion::NONE,
        token: found.token.clone(),
        verified_by: None,
        admitted_index: at.index,
        admitted_at: at.now,
        etcd: None,
    }
}

fn check(found: &FoundCluster) -> Result<(), Refusal> {
    let founders = &found.founders;
    let mut problem = None;
    if founders.is_empty() || founders.len() > limits::MAX_FOUNDERS {
        problem =
            Some(format!("has {} founders, not 1 to {}", founders.len(), limits::MAX_FOUNDERS));
    } else if distinct(founders.iter().map(|f| &f.public_key)) < founders.len()
        || distinct(founders.iter().map(|f| &f.name)) < founders.len()
    {
        problem = Some("names a founder twice".to_owned());
    } else if found.certificate.is_empty()
        || found.certificate.len() > limits::MAX_BIRTH_CERTIFICATE
    {
        problem = Some(format!("is not 1 to {} bytes long", limits::MAX_BIRTH_CERTIFICATE));
    }
    if let Some(problem) = problem {
        return Err(Refusal::new(
            RefusalKind::Invalid,
            format!("the birth certificate {problem}; correct the configuration and start again"),
        ));
    }
    founders.iter().try_for_each(|f| check_addresses(&f.addresses))?;
    check_settings(found)
}

fn check_settings(found: &FoundCluster) -> Result<(), Refusal> {
    let operators = &found.operators;
    let names = operators.iter().map(|o| o.name.as_str());
    let problem = if found.cluster_name.is_empty() || found.cluster_name.len() > limits::MAX_NAME {
        format!("cluster.clusterName is not 1 to {} bytes long", limits::MAX_NAME)
    } else if operators.len() > limits::MAX_OPERATORS {
        format!("cluster.operators has more than {} entries", limits::MAX_OPERATORS)
    } else if distinct(names.clone()) < operators.len()
        || distinct(operators.iter().map(|o| o.public_key)) < operators.len()
    {
        "cluster.operators has a name or a key twice".to_owned()
    } else if names.clone().any(|name| name.is_empty() || name.len() > limits::MAX_NAME) {
        format!("cluster.operators has a name that is not 1 to {} bytes long", limits::MAX_NAME)
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        RefusalKind::Invalid,
        format!("{problem}; correct the configuration and start again"),
    ))
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<BTreeSet<_>>().len()
}
