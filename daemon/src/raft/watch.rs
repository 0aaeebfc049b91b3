//! Runs the quorum watch ([`super::quorum`]) over openraft's metrics.

use std::time::Duration;

use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::group::Leadership;
use super::quorum::{Effect, Lead, Look, core_silent, step};
use super::timing::QUORUM;
use super::types::Raft;
use muster_storage::Stall;

/// Sampling interval of the time since the last acknowledgement, which passes without any event. A
/// leader without a majority steps down after two leases and at most one interval.
const TICK: Duration = Duration::from_millis(225);

/// Watches this node's leadership until `stop` and publishes it. Only this task turns heartbeats
/// off and on: they are off while this node has stepped down or hands its leadership over.
pub(super) async fn watch_quorum(
    raft: Raft,
    publish: watch::Sender<Leadership>,
    stall: Stall,
    mut parting: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let start = Instant::now();
    let mut metrics = raft.metrics();
    let (mut looked, mut look) = (start, Look::default());
    let mut lead = Lead::Normal;
    let mut unknown_since: Option<Instant> = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = parting.changed() => {}
            () = stop.cancelled() => return,
        }
        let parting = *parting.borrow_and_update();
        let since_last = std::mem::replace(&mut looked, Instant::now()).elapsed();
        let has_published = metrics.has_changed().unwrap_or(false);
        look.core_silent = core_silent(look.core_silent, has_published, since_last, TICK);
        look.stalled = stall.lasts();
        let (leads, since, leader) = {
            let metrics = metrics.borrow_and_update();
            let since = metrics.millis_since_quorum_ack.map(Duration::from_millis);
            (metrics.state == ServerState::Leader, since, metrics.current_leader)
        };
        // A leader whose membership has just changed may have no acknowledgement at all. Then the
        // time without one starts when this was first seen.
        unknown_since = match (leads, since) {
            (true, None) => unknown_since.or(Some(Instant::now())),
            (true, Some(_)) | (false, _) => None,
        };
        look.since_acknowledged = since.or_else(|| unknown_since.map(|at| at.elapsed()));
        let unacknowledged = look.unacknowledged();
        let (next, effect) = step(lead, start.elapsed(), unacknowledged, QUORUM);
        lead = next;
        let stepped_back = matches!(lead, Lead::SteppedBack { .. });
        raft.runtime_config().heartbeat(!stepped_back && !parting);
        publish.send_if_modified(|known| {
            known.core_silent = look.core_silent;
            if leader.is_some() && !stepped_back {
                known.last_led = Instant::now();
            }
            std::mem::replace(&mut known.stepped_back, stepped_back) != stepped_back
        });
        match effect {
            None => {}
            Some(Effect::StopHeartbeats) => {
                warn!(?unacknowledged, "this leader lost its quorum and steps down");
            }
            Some(Effect::SendOneHeartbeat) if parting || look.disk_hangs() => {}
            Some(Effect::SendOneHeartbeat) => {
                if let Err(error) = raft.trigger().heartbeat().await {
                    warn!(%error, "cannot send a probe heartbeat");
                }
            }
            Some(Effect::StartHeartbeats) => info!("heartbeats resumed"),
        }
    }
}
