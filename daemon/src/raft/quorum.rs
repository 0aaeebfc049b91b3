//! Check-quorum: a leader that has lost its quorum steps down. openraft 0.9 has none of its own. A
//! leader without quorum that still reaches one voter would block every election by renewing that
//! voter's lease (openraft issue 2080).
//!
//! After two leases without a majority's acknowledgement the leader stops its heartbeats and
//! accepts no writes. It probes with single heartbeats, far enough apart for an election to fit
//! between, and resumes if a majority answers.

use std::time::Duration;

/// A Raft that has waited for its disk for this long is stuck: the node no longer leads, accepts no
/// writes and answers no read as current.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The timers that the quorum watch depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuorumTimers {
    /// A follower without a heartbeat for this long may vote for another node.
    pub(super) lease: Duration,
}

impl QuorumTimers {
    fn lost_after(self) -> Duration {
        self.lease * 2
    }

    fn probe_every(self) -> Duration {
        self.lease * 4
    }
}

/// Leadership of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaderState {
    /// It does not lead, or leads with a majority.
    Normal,
    /// It leads in name only: no heartbeats, no writes.
    SteppedDown {
        /// Due time of the next single heartbeat, on the caller's clock.
        probe_at: Duration,
    },
}

/// An action on the Raft core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    StopHeartbeats,
    SendOneHeartbeat,
    StartHeartbeats,
}

/// One sample of the leader's quorum and of this node's disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QuorumSample {
    /// Time since a majority acknowledged this leader, as openraft last reported; `None` when this
    /// node does not lead.
    pub(super) since_acknowledged: Option<Duration>,
    /// Time since openraft last published metrics. It publishes none while it waits for its disk.
    pub(super) core_silence: Duration,
    /// Duration of the store commit in progress; zero if there is none.
    pub(super) stalled_for: Duration,
}

impl QuorumSample {
    /// Time since a majority acknowledged this leader; `None` when this node does not lead. It is
    /// at least openraft's silence, since the last report is that old. openraft does not wait for
    /// the write of a committed index and keeps being acknowledged then. But a leader whose disk hangs can accept no
    /// write, so the hang counts too.
    pub(super) fn unacknowledged(self) -> Option<Duration> {
        let hung = if self.disk_hangs() { self.stalled_for } else { Duration::ZERO };
        self.since_acknowledged.map(|since| since.max(self.core_silence).max(hung))
    }

    pub(super) fn disk_hangs(self) -> bool {
        self.stalled_for >= STUCK_AFTER
    }
}

/// Returns openraft's silence at a sample taken `since_last` after the previous one. A late sample
/// means that this process was paused, and openraft with it, so at most twice the sampling interval
/// `tick` counts.
pub(super) fn core_silence(
    before: Duration,
    has_published: bool,
    since_last: Duration,
    tick: Duration,
) -> Duration {
    if has_published { Duration::ZERO } else { before + since_last.min(tick * 2) }
}

/// Decides the next state and action. `unacknowledged` is the time since a majority acknowledged
/// this leader, `None` when it does not lead. `now` is any monotonic clock.
pub(super) fn step(
    lead: LeaderState,
    now: Duration,
    unacknowledged: Option<Duration>,
    timing: QuorumTimers,
) -> (LeaderState, Option<Effect>) {
    let lost = unacknowledged.is_some_and(|since| since > timing.lost_after());
    match lead {
        LeaderState::Normal if lost => {
            let probe_at = now + timing.probe_every();
            (LeaderState::SteppedDown { probe_at }, Some(Effect::StopHeartbeats))
        }
        LeaderState::Normal => (LeaderState::Normal, None),
        LeaderState::SteppedDown { .. } if !lost => {
            (LeaderState::Normal, Some(Effect::StartHeartbeats))
        }
        LeaderState::SteppedDown { probe_at } if now >= probe_at => {
            let probe_at = now + timing.probe_every();
            (LeaderState::SteppedDown { probe_at }, Some(Effect::SendOneHeartbeat))
        }
        LeaderState::SteppedDown { probe_at } => (LeaderState::SteppedDown { probe_at }, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: QuorumTimers = QuorumTimers { lease: Duration::from_millis(900) };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_follower_and_a_leader_with_its_majority_are_left_alone() {
        assert_eq!(step(LeaderState::Normal, ms(0), None, TIMING), (LeaderState::Normal, None));
        assert_eq!(
            step(LeaderState::Normal, ms(0), Some(ms(1800)), TIMING),
            (LeaderState::Normal, None)
        );
    }

    #[test]
    fn a_leader_without_its_majority_stops_heartbeats_then_probes_and_resumes_when_answered() {
        let (back, effect) = step(LeaderState::Normal, ms(0), Some(ms(1801)), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        assert_eq!(step(back, ms(3599), Some(ms(5400)), TIMING), (back, None));
        let (probed, effect) = step(back, ms(3600), Some(ms(5401)), TIMING);
        assert_eq!(effect, Some(Effect::SendOneHeartbeat));
        assert_eq!(probed, LeaderState::SteppedDown { probe_at: ms(7200) });
        let (answered, effect) = step(probed, ms(3700), Some(ms(90)), TIMING);
        assert_eq!((answered, effect), (LeaderState::Normal, Some(Effect::StartHeartbeats)));
    }

    /// openraft does not wait for the write of a committed index. Such a leader kept sending
    /// heartbeats and refused every request.
    #[test]
    fn a_leader_whose_disk_hangs_steps_down_though_it_is_acknowledged() {
        let sample = |stalled_for| QuorumSample {
            since_acknowledged: Some(ms(50)),
            stalled_for,
            ..QuorumSample::default()
        };
        let slow = sample(STUCK_AFTER / 2);
        assert_eq!(step(LeaderState::Normal, ms(0), slow.unacknowledged(), TIMING).1, None);
        let hung = sample(STUCK_AFTER);
        let (_, effect) = step(LeaderState::Normal, ms(0), hung.unacknowledged(), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        let follower = QuorumSample { since_acknowledged: None, ..hung };
        assert_eq!(follower.unacknowledged(), None);
    }

    #[test]
    fn a_leader_whose_openraft_is_silent_steps_down_but_a_paused_process_is_not_silent() {
        let tick = ms(225);
        let mut sample =
            QuorumSample { since_acknowledged: Some(ms(50)), ..QuorumSample::default() };
        sample.core_silence = core_silence(sample.core_silence, false, ms(60_000), tick);
        let (lead, _) = step(LeaderState::Normal, ms(0), sample.unacknowledged(), TIMING);
        assert_eq!(lead, LeaderState::Normal, "it was paused");
        for _ in 0..8 {
            sample.core_silence = core_silence(sample.core_silence, false, tick, tick);
        }
        let (_, effect) = step(LeaderState::Normal, ms(0), sample.unacknowledged(), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        assert_eq!(core_silence(sample.core_silence, true, tick, tick), ms(0));
    }

    #[test]
    fn a_deposed_leader_may_send_heartbeats_again_should_it_be_elected() {
        let back = LeaderState::SteppedDown { probe_at: ms(10) };
        assert_eq!(
            step(back, ms(5), None, TIMING),
            (LeaderState::Normal, Some(Effect::StartHeartbeats))
        );
    }

    #[test]
    fn an_election_fits_between_two_probes() {
        // A voter refuses others for one lease after a probe, then starts an election within one
        // more.
        assert!(TIMING.probe_every() >= TIMING.lease * 3);
    }
}
