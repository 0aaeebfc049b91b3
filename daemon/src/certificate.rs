//! Node certificates: their content, and issuing them from the cluster's machine authority. Does not
//! decide when one is due.

use std::net::IpAddr;
use std::time::SystemTime;

use muster_pki::leaf::{self, Profile, SubjectKey};
use muster_types::limits::MAX_ADDRESSES;
use tracing::warn;

use crate::membership::NodeCertificate;
use muster_state::{ClusterState, Member};

/// Returns the certificate profile of a member.
pub fn profile(member: &Member) -> Profile {
    Profile::Node { id: member.id, role: member.role }
}

/// Returns the member's distinct addresses without ports, for the certificates of its etcd.
pub fn ips(member: &Member) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for address in member.addresses.iter().take(MAX_ADDRESSES) {
        if !ips.contains(&address.ip()) {
            ips.push(address.ip());
        }
    }
    ips
}

/// Issues a node certificate for a member, with the authorities to trust. `None` before the
/// authorities are installed.
pub fn issue(state: &ClusterState, member: &Member, now: SystemTime) -> Option<NodeCertificate> {
    let machine = &state.authorities()?.machine;
    match leaf::issue(machine, &profile(member), &SubjectKey::from(member.public_key), now) {
        Ok(issued) => Some(NodeCertificate {
            chain: issued.chain,
            authorities: vec![machine.certificate().clone()],
        }),
        Err(error) => {
            warn!(%error, node = %member.name, "cannot issue a node certificate");
            None
        }
    }
}
