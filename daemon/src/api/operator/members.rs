//! The operator call about members: the registry, with what this node sees of each.

use std::time::{Duration, Instant};

use muster_gossip::{Liveness, LivenessState};
use muster_messages::operator as wire;
use muster_messages::operator::member::State;
use tonic::Status;

use super::OperatorContext;
use super::context::CallContext;
use muster_state::view::{self, LiveStatus, PeerLiveness};

/// Time limit for a member listing to wait for a leader. After that, the listing is returned as
/// stale.
const LEADER_TIMEOUT: Duration = Duration::from_millis(1500);

impl OperatorContext {
    /// Lists the members. Without a leader, the reply states its maximum age instead of failing.
    pub(super) async fn members(
        &self,
        _: &CallContext,
        _: wire::MembersRequest,
    ) -> Result<wire::MembersReply, Status> {
        let (state, stale_for) = match self.group.catch_up_within(LEADER_TIMEOUT).await {
            Ok(state) => (state, None),
            Err(_) => (self.group.state(), Some(self.group.leaderless_for())),
        };
        Ok(view::members(&state, &self.seen(stale_for)))
    }

    /// Returns this node's view of the other nodes that is not in the state.
    pub(super) fn seen(&self, stale_for: Option<Duration>) -> LiveStatus {
        let metrics = self.group.metrics();
        let voters = metrics.borrow().membership_config.membership().voter_ids().collect();
        let now = tokio::time::Instant::now().into_std();
        let liveness = self.liveness.borrow();
        LiveStatus {
            me: self.group.me(),
            leader: self.group.leader(),
            voters,
            stale_for,
            liveness: liveness.iter().map(|(id, seen)| (*id, peer_liveness(seen, now))).collect(),
        }
    }
}

/// Converts the liveness of a peer. A peer that was never heard has no time of silence.
fn peer_liveness(seen: &Liveness, now: Instant) -> PeerLiveness {
    let state = match seen.state {
        LivenessState::Alive => State::Alive,
        LivenessState::Suspect => State::Suspect,
        LivenessState::Down => State::Down,
        LivenessState::Unknown => State::Unknown,
    };
    let silent_for = seen.last_heard.map(|heard| now.saturating_duration_since(heard));
    PeerLiveness { state, silent_for }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was listed as heard just now.
    #[test]
    fn a_peer_that_was_never_heard_has_no_time_of_silence() {
        let now = tokio::time::Instant::now().into_std();
        let mut seen =
            Liveness { state: LivenessState::Unknown, last_heard: None, generation: 0, meta: None };
        assert_eq!(
            peer_liveness(&seen, now),
            PeerLiveness { state: State::Unknown, silent_for: None }
        );
        seen = Liveness { state: LivenessState::Alive, last_heard: Some(now), ..seen };
        let later = now + Duration::from_secs(2);
        assert_eq!(
            peer_liveness(&seen, later),
            PeerLiveness { state: State::Alive, silent_for: Some(Duration::from_secs(2)) }
        );
    }
}
