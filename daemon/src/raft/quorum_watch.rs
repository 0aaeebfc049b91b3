//! Runs the quorum watch ([`super::quorum`]) over openraft's metrics.

use std::time::Duration;

use openraft::ServerState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::quorum::{Effect, LeaderState, QuorumSample, core_silence, step};
use super::timing::QUORUM_TIMERS;
use super::types::Raft;
use muster_storage::DiskStall;

/// Sampling interval of the time since the last acknowledgement, which passes without any event. A
/// leader without a majority steps down after two leases and at most one interval.
const TICK: Duration = Duration::from_millis(225);

/// Channels between the handle and the quorum watch.
#[derive(Debug, Clone)]
pub(super) struct WatchChannels {
    /// Published by the watch.
    pub leadership: watch::Receiver<Leadership>,
    /// The stall of the node's store.
    pub stall: DiskStall,
    /// Read by the watch. True while this node steps down, until another leader is elected. See
    /// [`super::membership`].
    pub stepping_down: watch::Sender<bool>,
}

/// Leadership of this node, as published by the quorum watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leadership {
    /// True if this node leads in name only: no majority has acknowledged it for too long.
    pub stepped_down: bool,
    /// The last time that this node knew a leader with a majority.
    pub last_leader_at: Instant,
    /// Time since openraft last published metrics, which it does at every tick. Time in which this
    /// process was paused does not count.
    pub core_silence: Duration,
}

impl Default for Leadership {
    fn default() -> Self {
        Self { stepped_down: false, last_leader_at: Instant::now(), core_silence: Duration::ZERO }
    }
}

/// Watches this node's leadership until `stop` and publishes it. Only this task turns heartbeats
/// off and on: they are off while this node has stepped down or hands its leadership over.
pub(super) async fn watch_quorum(
    raft: Raft,
    publish: watch::Sender<Leadership>,
    stall: DiskStall,
    mut stepping_down: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let start = Instant::now();
    let mut metrics = raft.metrics();
    let (mut sampled_at, mut sample) = (start, QuorumSample::default());
    let mut lead = LeaderState::Normal;
    let mut unknown_since: Option<Instant> = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = stepping_down.changed() => {}
            () = stop.cancelled() => return,
        }
        let stepping_down = *stepping_down.borrow_and_update();
        let since_last = std::mem::replace(&mut sampled_at, Instant::now()).elapsed();
        let has_published = metrics.has_changed().unwrap_or(false);
        sample.core_silence = core_silence(sample.core_silence, has_published, since_last, TICK);
        sample.stalled_for = stall.elapsed();
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
        sample.since_acknowledged = since.or_else(|| unknown_since.map(|at| at.elapsed()));
        let unacknowledged = sample.unacknowledged();
        let (next, effect) = step(lead, start.elapsed(), unacknowledged, QUORUM_TIMERS);
        lead = next;
        let stepped_down = matches!(lead, LeaderState::SteppedDown { .. });
        raft.runtime_config().heartbeat(!stepped_down && !stepping_down);
        publish.send_if_modified(|known| {
            known.core_silence = sample.core_silence;
            if leader.is_some() && !stepped_down {
                known.last_leader_at = Instant::now();
            }
            std::mem::replace(&mut known.stepped_down, stepped_down) != stepped_down
        });
        match effect {
            None => {}
            Some(Effect::StopHeartbeats) => {
                warn!(?unacknowledged, "this leader lost its quorum and steps down");
            }
            Some(Effect::SendOneHeartbeat) if stepping_down || sample.disk_hangs() => {}
            Some(Effect::SendOneHeartbeat) => {
                if let Err(error) = raft.trigger().heartbeat().await {
                    warn!(%error, "cannot send a probe heartbeat");
                }
            }
            Some(Effect::StartHeartbeats) => info!("heartbeats resumed"),
        }
    }
}
