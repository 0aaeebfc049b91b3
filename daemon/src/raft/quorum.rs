//! A leader that has lost its quorum steps back. openraft 0.9 has no check-quorum of its own, and a
//! leader without quorum that still reaches one voter would block every election by renewing that
//! voter's lease (openraft issue 2080), so: after two leases without a majority's acknowledgement the
//! leader stops its heartbeats and takes no writes. It probes with a single heartbeat now and then,
//! far enough apart for an election to fit between, and leads on if a majority answers.

use std::time::Duration;

/// A Raft that has waited for its disk for this long is stuck: this node leads no more then, takes no
/// writes and answers no read as current.
pub const STUCK: Duration = Duration::from_secs(2);

/// What the group's timers are.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A follower that heard nothing for this long may vote for another.
    pub lease: Duration,
}

impl Timing {
    fn lost_after(self) -> Duration {
        self.lease * 2
    }

    fn probe_every(self) -> Duration {
        self.lease * 4
    }
}

/// Whether this node leads, and how well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// It does not lead, or leads with a majority behind it.
    Normal,
    /// It leads in name only: no heartbeats, no writes.
    SteppedBack {
        /// When the next single heartbeat is due, on the caller's clock.
        probe_at: Duration,
    },
}

/// What to do to the Raft core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    StopHeartbeats,
    SendOneHeartbeat,
    StartHeartbeats,
}

/// What is known at one look of the majority behind this node, and of its disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// The time since a majority acknowledged this leader, as openraft last said; none when it does
    /// not lead.
    pub since_acknowledged: Option<Duration>,
    /// For how long openraft has said nothing, which it does while it waits for its disk.
    pub core_silent: Duration,
    /// For how long a commit to the store has been under way.
    pub stalled: Duration,
}

impl Look {
    /// The time since a majority acknowledged this leader: what openraft last said is as old as its
    /// silence. It does not wait, and is acknowledged, if only a mark was to be written; but a leader
    /// whose disk has hung for long could take no write, and has no majority either.
    pub fn unacknowledged(self) -> Option<Duration> {
        let hung = if self.disk_hangs() { self.stalled } else { Duration::ZERO };
        self.since_acknowledged.map(|since| since.max(self.core_silent).max(hung))
    }

    pub fn disk_hangs(self) -> bool {
        self.stalled >= STUCK
    }
}

/// For how long openraft has been silent, at a look `since_last` after the one before. A look that
/// comes late says that this process did not run, and openraft with it: no more than twice the time
/// between looks, `tick`, counts.
pub fn core_silent(
    before: Duration,
    has_published: bool,
    since_last: Duration,
    tick: Duration,
) -> Duration {
    if has_published { Duration::ZERO } else { before + since_last.min(tick * 2) }
}

/// Decides from what is known: `unacknowledged` is the time since a majority acknowledged
/// this leader, `None` when it does not lead. `now` is any monotonic clock.
pub fn step(
    lead: Lead,
    now: Duration,
    unacknowledged: Option<Duration>,
    timing: Timing,
) -> (Lead, Option<Effect>) {
    let lost = unacknowledged.is_some_and(|since| since > timing.lost_after());
    match lead {
        Lead::Normal if lost => {
            let probe_at = now + timing.probe_every();
            (Lead::SteppedBack { probe_at }, Some(Effect::StopHeartbeats))
        }
        Lead::Normal => (Lead::Normal, None),
        Lead::SteppedBack { .. } if !lost => (Lead::Normal, Some(Effect::StartHeartbeats)),
        Lead::SteppedBack { probe_at } if now >= probe_at => {
            let probe_at = now + timing.probe_every();
            (Lead::SteppedBack { probe_at }, Some(Effect::SendOneHeartbeat))
        }
        Lead::SteppedBack { probe_at } => (Lead::SteppedBack { probe_at }, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { lease: Duration::from_millis(900) };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_follower_and_a_leader_with_its_majority_are_left_alone() {
        assert_eq!(step(Lead::Normal, ms(0), None, TIMING), (Lead::Normal, None));
        assert_eq!(step(Lead::Normal, ms(0), Some(ms(1800)), TIMING), (Lead::Normal, None));
    }

    #[test]
    fn a_leader_without_its_majority_falls_silent_then_probes_and_leads_on_when_answered() {
        let (back, effect) = step(Lead::Normal, ms(0), Some(ms(1801)), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        assert_eq!(step(back, ms(3599), Some(ms(5400)), TIMING), (back, None));
        let (probed, effect) = step(back, ms(3600), Some(ms(5401)), TIMING);
        assert_eq!(effect, Some(Effect::SendOneHeartbeat));
        assert_eq!(probed, Lead::SteppedBack { probe_at: ms(7200) });
        let (answered, effect) = step(probed, ms(3700), Some(ms(90)), TIMING);
        assert_eq!((answered, effect), (Lead::Normal, Some(Effect::StartHeartbeats)));
    }

    /// openraft does not wait for a mark that nobody waits for, so such a leader went on with its
    /// heartbeats, and everything that was asked of it was refused.
    #[test]
    fn a_leader_whose_disk_hangs_steps_back_though_it_is_acknowledged() {
        let look = |stalled| Look { since_acknowledged: Some(ms(50)), stalled, ..Look::default() };
        let slow = look(STUCK / 2);
        assert_eq!(step(Lead::Normal, ms(0), slow.unacknowledged(), TIMING).1, None);
        let hung = look(STUCK);
        let (_, effect) = step(Lead::Normal, ms(0), hung.unacknowledged(), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        let follower = Look { since_acknowledged: None, ..hung };
        assert_eq!(follower.unacknowledged(), None);
    }

    #[test]
    fn a_leader_whose_openraft_says_nothing_steps_back_but_a_pause_of_the_process_is_no_silence() {
        let tick = ms(225);
        let mut look = Look { since_acknowledged: Some(ms(50)), ..Look::default() };
        look.core_silent = core_silent(look.core_silent, false, ms(60_000), tick);
        let (lead, _) = step(Lead::Normal, ms(0), look.unacknowledged(), TIMING);
        assert_eq!(lead, Lead::Normal, "it was paused");
        for _ in 0..8 {
            look.core_silent = core_silent(look.core_silent, false, tick, tick);
        }
        let (_, effect) = step(Lead::Normal, ms(0), look.unacknowledged(), TIMING);
        assert_eq!(effect, Some(Effect::StopHeartbeats));
        assert_eq!(core_silent(look.core_silent, true, tick, tick), ms(0));
    }

    #[test]
    fn a_deposed_leader_may_send_heartbeats_again_should_it_be_elected() {
        let back = Lead::SteppedBack { probe_at: ms(10) };
        assert_eq!(step(back, ms(5), None, TIMING), (Lead::Normal, Some(Effect::StartHeartbeats)));
    }

    #[test]
    fn an_election_fits_between_two_probes() {
        // A voter refuses others for one lease after a probe, then waits at most one lease to stand.
        assert!(TIMING.probe_every() >= TIMING.lease * 3);
    }
}
