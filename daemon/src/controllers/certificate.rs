//! This node's certificate on the control plane: issued by itself, because it holds the authority,
//! from what the registry says of it; renewed at half life, and when the registry says otherwise.
//! Sessions go on over a renewal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_pki::CertificateDer;
use muster_pki::leaf::{self, Leaf, Profile, SubjectKey};
use muster_types::PublicKey;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock;
use crate::keeper::Keeper;
use crate::membership::Certified;
use crate::raft::Group;
use muster_state::{ClusterState, Member};

/// Looks again after this, should no event come first: certificates age without events.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the registry says of a member, as its certificate will.
pub fn profile(member: &Member) -> Profile {
    Profile::Node { id: member.id, role: member.role }
}

/// The member's addresses without ports, each once, for certificates of its etcd.
pub fn ips(member: &Member) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for address in member.addresses.iter().take(leaf::MAX_ADDRESSES) {
        if !ips.contains(&address.ip()) {
            ips.push(address.ip());
        }
    }
    ips
}

/// A node certificate for a member, with the authorities to check others by. `None` before the
/// authorities are agreed.
pub fn issue(state: &ClusterState, member: &Member, now: SystemTime) -> Option<Certified> {
    let machine = &state.authorities()?.machine;
    match leaf::issue(machine, &profile(member), &SubjectKey::from(member.public_key), now) {
        Ok(issued) => Some(Certified {
            chain: issued.chain,
            authorities: vec![machine.certificate().clone()],
        }),
        Err(error) => {
            warn!(%error, node = %member.name, "a node certificate was not issued");
            None
        }
    }
}

/// Whether the present certificate is due: none, past half of its life, or about other names.
fn is_due(
    present: Option<&[CertificateDer<'static>]>,
    profile: &Profile,
    said: Option<&Profile>,
    now: SystemTime,
) -> bool {
    let Some(present) = present else { return true };
    said != Some(profile)
        || Leaf::from_chain(present.to_vec()).map_or(true, |leaf| leaf.renew_at() <= now)
}

/// Runs until `stop`.
pub async fn run(group: Group, me: PublicKey, keeper: Keeper, stop: CancellationToken) {
    let mut states = group.watch_state();
    let trust = keeper.trust();
    let mut said = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let member = state.member(&group.me()).filter(|member| member.public_key == me);
        if let Some(member) = member {
            let wanted = profile(member);
            let present = trust.borrow().credentials.as_ref().map(|own| own.chain().to_vec());
            if is_due(present.as_deref(), &wanted, said.as_ref(), clock::now())
                && let Some(certified) = issue(&state, member, clock::now())
            {
                info!("this node has a new node certificate");
                keeper.set_certified(certified).await;
                said = Some(wanted);
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
