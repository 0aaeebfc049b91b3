//! Clients for the cluster's etcd: the members' addresses and this node's client certificate. The
//! certificate is issued in memory from the cluster's etcd authority and never written to disk.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use muster_init::units::etcd::client::{
    CredentialsError, Deadlines, EtcdClient, EtcdMember, MemberClient, Tls,
};
use muster_init::units::etcd::{Authorities, Credential};
use muster_pki::authority::MAX_COMMON_NAME;
use muster_pki::leaf::{self, KeyPair, Profile};
use muster_types::{ETCD_CLIENT_PORT, NodeId};
use ring::digest;

use muster_state::etcd::EtcdMemberPhase;
use muster_state::{ClusterState, Member as ClusterMember};

/// Lifetime of the certificate for Muster's own calls.
const LIFETIME: Duration = Duration::from_hours(24);

/// Common name of Muster's own calls to etcd.
const COMMON_NAME: &str = "muster";

/// Returns the common name for a client of etcd. A name that does not fit into a certificate is
/// cut, and a digest keeps it distinct.
pub fn common_name(name: &str) -> String {
    const DIGEST: usize = 8;
    let max_len = MAX_COMMON_NAME - COMMON_NAME.len() - 1;
    if name.len() <= max_len {
        return format!("{COMMON_NAME}:{name}");
    }
    let digest = HEXLOWER.encode(digest::digest(&digest::SHA256, name.as_bytes()).as_ref());
    let end = name.floor_char_boundary(max_len - DIGEST - 1);
    format!("{COMMON_NAME}:{}-{}", &name[..end], &digest[..DIGEST])
}

/// Error of creating a client for etcd.
#[derive(Debug, thiserror::Error)]
pub enum EtcdClientError {
    #[error("the cluster has no etcd authority yet")]
    NoAuthority,
    #[error("no node runs etcd yet")]
    NoMember,
    #[error("cannot issue a client certificate for etcd")]
    Issue(#[from] leaf::IssueError),
    #[error("cannot use the client certificate for etcd")]
    Credentials(#[from] CredentialsError),
}

/// Creates clients for etcd. Renews the credentials, and reuses connections while the members'
/// addresses stay the same.
#[derive(Debug)]
pub struct EtcdClients {
    key: KeyPair,
    tls: Option<(Tls, SystemTime)>,
    client: Option<(Vec<SocketAddr>, EtcdClient)>,
}

impl Default for EtcdClients {
    fn default() -> Self {
        Self { key: KeyPair::generate(), tls: None, client: None }
    }
}

impl EtcdClients {
    /// Returns a client for the cluster's etcd, through any member.
    pub fn client(
        &mut self,
        state: &ClusterState,
        now: SystemTime,
    ) -> Result<EtcdClient, EtcdClientError> {
        let endpoints: Vec<_> = members(state).map(|(_, address)| address).collect();
        let tls = self.tls(state, now)?;
        if let Some((known, client)) = &self.client
            && *known == endpoints
        {
            return Ok(client.clone());
        }
        let client = EtcdClient::new(&endpoints, &tls, Deadlines::default());
        let client = client.ok_or(EtcdClientError::NoMember)?;
        self.client = Some((endpoints, client.clone()));
        Ok(client)
    }

    /// Returns a client for one node's etcd.
    pub fn member(
        &mut self,
        state: &ClusterState,
        node: &NodeId,
        now: SystemTime,
    ) -> Result<MemberClient, EtcdClientError> {
        let address = members(state).find(|(id, _)| id == node).ok_or(EtcdClientError::NoMember)?.1;
        Ok(MemberClient::new(address, &self.tls(state, now)?, Deadlines::default()))
    }

    fn tls(&mut self, state: &ClusterState, now: SystemTime) -> Result<Tls, EtcdClientError> {
        if let Some((tls, renew_at)) = &self.tls
            && now < *renew_at
        {
            return Ok(tls.clone());
        }
        let authority = &state.authorities().ok_or(EtcdClientError::NoAuthority)?.etcd;
        let profile =
            Profile::EtcdClient { common_name: COMMON_NAME.to_owned(), lifetime: LIFETIME };
        let leaf = leaf::issue(authority, &profile, &self.key.public(), now)?;
        let trusted = Authorities::new(vec![authority.certificate().clone()])
            .expect("the list has one certificate");
        let renew_at = leaf.renew_at();
        let tls = Tls::new(&trusted, &Credential::new(leaf.chain, self.key.to_pkcs8()))?;
        self.tls = Some((tls.clone(), renew_at));
        self.client = None;
        Ok(tls)
    }
}

/// Returns the client address of a member's etcd.
pub fn client_address(member: &ClusterMember) -> Option<SocketAddr> {
    member.addresses.first().map(|address| SocketAddr::new(address.ip(), ETCD_CLIENT_PORT))
}

/// Returns the node that runs a member of etcd's member list.
pub fn node_of(state: &ClusterState, listed: &EtcdMember) -> Option<NodeId> {
    let nodes = || state.etcd().nodes();
    let by_id = nodes().find(|(_, r)| r.phase.member_id() == Some(listed.id));
    let by_name = || {
        nodes().find(|(_, r)| {
            r.phase == EtcdMemberPhase::Founding && r.peer.name.as_str() == listed.name
        })
    };
    by_id.or_else(by_name).map(|(node, _)| *node)
}

/// Returns the nodes that run an etcd member, with its client address.
pub fn members(state: &ClusterState) -> impl Iterator<Item = (NodeId, SocketAddr)> {
    state.etcd().nodes().filter_map(|(node, record)| {
        let runs = match record.phase {
            EtcdMemberPhase::Founding
            | EtcdMemberPhase::Learner { .. }
            | EtcdMemberPhase::Voter { .. } => true,
            EtcdMemberPhase::Waiting | EtcdMemberPhase::Lost { .. } => false,
        };
        let member = state.member(node).filter(|_| runs)?;
        Some((*node, client_address(member)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_fit_into_a_certificate_and_stay_distinct() {
        assert_eq!(common_name("admin"), "muster:admin");
        let longest = |last: &str| format!("{}{last}", "n".repeat(62));
        for name in [longest("a"), "n".repeat(57), "n".repeat(58), "ö".repeat(31)] {
            let common_name = common_name(&name);
            assert!(common_name.len() <= MAX_COMMON_NAME, "{common_name}");
            assert!(common_name.starts_with("muster:"), "{common_name}");
        }
        assert_eq!(common_name(&"n".repeat(57)), format!("muster:{}", "n".repeat(57)));
        assert_ne!(common_name(&longest("a")), common_name(&longest("b")));
    }
}
