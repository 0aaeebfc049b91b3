//! Runs the quorum watch ([`super::quorum`]) over openraft's metrics.

use std::time::Duration;

use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::group::Leadership;
use super::quorum::{Effect, Lead, step};
use super::timing::QUORUM;
use super::types::Raft;

/// How often the time since the last acknowledgement is looked at; it passes without any event. A
/// leader without a majority steps back after two leases and at most this.
const TICK: Duration = Duration::from_millis(225);

/// Looks after this node's leadership until `stop`; publishes what becomes of it.
pub(super) async fn watch_quorum(
    raft: Raft,
    publish: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let start = Instant::now();
    let metrics = raft.metrics();
    let mut lead = Lead::Normal;
    let mut unknown_since: Option<Instant> = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (leads, since, leader) = {
            let metrics = metrics.borrow();
            let since = metrics.millis_since_quorum_ack.map(Duration::from_millis);
            (metrics.state == ServerState::Leader, since, metrics.current_leader)
        };
        // A leader whose membership has just changed may have no acknowledgement at all: then its
        // time without one runs from the moment that this was first seen.
        unknown_since = match (leads, since) {
            (true, None) => unknown_since.or(Some(Instant::now())),
            (true, Some(_)) | (false, _) => None,
        };
        let unacknowledged = since.or_else(|| unknown_since.map(|at| at.elapsed()));
        let (next, effect) = step(lead, start.elapsed(), unacknowledged, QUORUM);
        lead = next;
        let stepped_back = matches!(lead, Lead::SteppedBack { .. });
        publish.send_if_modified(|known| {
            if leader.is_some() && !stepped_back {
                known.last_led = Instant::now();
            }
            std::mem::replace(&mut known.stepped_back, stepped_back) != stepped_back
        });
        match effect {
            None => {}
            Some(Effect::StopHeartbeats) => {
                warn!(?unacknowledged, "no majority acknowledges this leader; it steps back");
                raft.runtime_config().heartbeat(false);
            }
            Some(Effect::SendOneHeartbeat) => {
                if let Err(error) = raft.trigger().heartbeat().await {
                    warn!(%error, "a probing heartbeat was not sent");
                }
            }
            Some(Effect::StartHeartbeats) => {
                info!("heartbeats are on again");
                raft.runtime_config().heartbeat(true);
            }
        }
    }
}
