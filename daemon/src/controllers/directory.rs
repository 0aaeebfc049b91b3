//! The directory: the members that sessions are checked against, and the addresses to dial. It is
//! the registry, with the addresses from gossip before those of the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_gossip::{Liveness, LivenessState, LivenessView};
use muster_transport::endpoint::{Directory, Peer};
use muster_types::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::raft::Group;
use crate::throttle;
use crate::trust_store::TrustStore;
use muster_state::ClusterState;

/// Converts the registry to a directory.
pub fn registry(state: &ClusterState) -> Directory {
    let peer = |member: &muster_state::Member| Peer {
        public_key: member.public_key,
        name: member.name.clone(),
        role: member.role,
        addresses: member.addresses.clone(),
    };
    state.members().map(|member| (member.id, peer(member))).collect()
}

/// Adds the addresses from gossip before those of the registry.
pub fn with_gossip_addresses(
    mut registry: Directory,
    seen: &BTreeMap<NodeId, Liveness>,
) -> Directory {
    for (id, peer) in &mut registry {
        let meta = seen.get(id).filter(|seen| seen.state != LivenessState::Unknown);
        let Some(meta) = meta.and_then(|seen| seen.meta.as_ref()) else { continue };
        let remembered = std::mem::take(&mut peer.addresses);
        peer.addresses.clone_from(&meta.addresses);
        peer.addresses.extend(remembered.into_iter().filter(|a| !meta.addresses.contains(a)));
    }
    registry
}

/// Updates the directory of a control-plane node from the state until `stop`.
pub async fn run(
    group: Group,
    mut liveness: watch::Receiver<LivenessView>,
    trust_store: TrustStore,
    stop: CancellationToken,
) {
    let mut states = group.watch_state();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let seen = Arc::clone(&liveness.borrow_and_update());
        let again = Instant::now() + throttle::delay(state.members().len());
        // Until the founding is committed, the directory comes from the birth certificate.
        if state.birth().is_some() {
            trust_store.set_directory(with_gossip_addresses(registry(&state), &seen)).await;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
            Ok(()) = liveness.changed() => {}
        }
        // A removal is applied without delay.
        let removed = state.removed().len();
        let removal = async {
            states.wait_for(|state| state.removed().len() != removed).await.map(drop).ok()
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = removal => {}
            () = sleep_until(again) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_gossip::NodeMeta;
    use muster_types::{PublicKey, Role};

    use super::*;

    #[test]
    fn what_a_member_says_of_itself_comes_before_what_the_registry_remembers() {
        let id = NodeId::from_bytes([1; 32]);
        let old = "10.0.0.1:50000".parse().unwrap();
        let new = "10.0.0.9:50000".parse().unwrap();
        let peer = Peer {
            public_key: PublicKey::from_bytes([1; 32]),
            name: "a".parse().unwrap(),
            role: Role::Worker,
            addresses: vec![old],
        };
        let registry = Directory::from([(id, peer)]);
        let mut seen = Liveness {
            state: LivenessState::Alive,
            last_heard: None,
            generation: 1,
            meta: Some(NodeMeta { addresses: vec![new], ..NodeMeta::default() }),
        };
        let merged = with_gossip_addresses(registry.clone(), &BTreeMap::from([(id, seen.clone())]));
        assert_eq!(merged[&id].addresses, [new, old]);
        seen.meta = None;
        assert_eq!(
            with_gossip_addresses(registry.clone(), &BTreeMap::from([(id, seen)])),
            registry
        );
    }
}
