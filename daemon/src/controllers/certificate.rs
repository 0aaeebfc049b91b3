//! The node certificate on the control plane. The node holds the authority, so it issues its own
//! certificate from its registry entry. It renews at half of the lifetime, and when the registry
//! entry changes. Open sessions survive a renewal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_pki::CertificateDer;
use muster_pki::leaf::{Leaf, Profile};
use muster_types::PublicKey;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::certificate::{issue, profile};
use crate::clock;
use crate::raft::Group;
use crate::trust_store::TrustStore;

/// Interval of a check without events: certificates expire without one.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Returns true if a new certificate is due: there is none, half of its lifetime is over, or the
/// profile has changed.
fn is_due(
    present: Option<&[CertificateDer<'static>]>,
    profile: &Profile,
    issued_for: Option<&Profile>,
    now: SystemTime,
) -> bool {
    let Some(present) = present else { return true };
    issued_for != Some(profile)
        || Leaf::from_chain(present.to_vec()).map_or(true, |leaf| leaf.renew_at() <= now)
}

/// Runs until `stop`.
pub async fn run(group: Group, me: PublicKey, trust_store: TrustStore, stop: CancellationToken) {
    let mut states = group.watch_state();
    let trust = trust_store.trust();
    let mut issued_for = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let member = state.member(&group.me()).filter(|member| member.public_key == me);
        if let Some(member) = member {
            let profile = profile(member);
            let present = trust.borrow().credentials.as_ref().map(|own| own.chain().to_vec());
            if is_due(present.as_deref(), &profile, issued_for.as_ref(), clock::now())
                && let Some(certificate) = issue(&state, member, clock::now())
            {
                info!("issued a new node certificate");
                trust_store.set_certificate(certificate).await;
                issued_for = Some(profile);
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESYNC_INTERVAL) => {}
        }
    }
}
