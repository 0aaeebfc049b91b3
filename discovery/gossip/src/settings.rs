//! Parameters of the gossip protocol.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use super::wire::MAX_DATAGRAM;

/// Parameters of the protocol. The defaults are for one site. An idle member sends 105 bytes per
/// second in five datagrams (395 with headers), regardless of the number of members. Other
/// measurements are in docs/proof/discovery.md (`gossip-scale` simulates them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Interval at which each member probes one other, chosen at random without repetition.
    pub probe_period: Duration,
    /// Timeout of a direct probe, after which others are asked to probe; less than the period.
    pub probe_rtt: Duration,
    /// Number of members that are asked to probe.
    pub indirect_probes: usize,
    /// Time in which a suspect may refute, when this member is healthy.
    pub suspicion: Duration,
    /// Interval at which a member notifies its suspect again.
    pub renotify_interval: Duration,
    /// Interval at which updates are passed on.
    pub gossip_period: Duration,
    /// Number of members that updates are passed on to.
    pub gossip_fanout: usize,
    /// Interval of the search for missing members after a start or a change.
    pub reconnect_min_interval: Duration,
    /// Maximum interval of the search; it doubles while nothing is found.
    pub reconnect_max_interval: Duration,
    /// Number of missing members that are asked per round.
    pub reconnect_fanout: usize,
    /// Interval at which queued metadata is sent.
    pub meta_interval: Duration,
    /// Number of members that queued metadata is sent to per interval.
    pub meta_fanout: usize,
    /// Up to this many members, metadata is sent without a request.
    pub meta_push_max_members: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            probe_period: ms(400),
            probe_rtt: ms(150),
            indirect_probes: 4,
            suspicion: ms(1500),
            renotify_interval: ms(200),
            gossip_period: ms(100),
            gossip_fanout: 3,
            reconnect_min_interval: ms(100),
            reconnect_max_interval: ms(1000),
            reconnect_fanout: 3,
            meta_interval: ms(100),
            meta_fanout: 4,
            meta_push_max_members: 256,
        }
    }
}

/// Maximum of the local health score; each point adds one base suspicion time.
pub(crate) const MAX_HEALTH_SCORE: u8 = 4;

impl Settings {
    /// Returns foca's configuration for `members` members at health score `score`.
    pub(crate) fn foca(&self, members: usize, score: u8) -> Config {
        Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: positive(self.indirect_probes),
            max_transmissions: transmissions(members),
            suspect_to_down_after: self.suspicion * (1 + u32::from(score.min(MAX_HEALTH_SCORE))),
            remove_down_after: None, // the directory bounds the view, not time
            max_packet_size: positive(MAX_DATAGRAM),
            notify_down_members: true,
            periodic_announce: None, // the engine searches by the directory instead
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: self.gossip_period,
                num_members: positive(self.gossip_fanout),
            }),
        }
    }
}

fn positive(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

/// Returns how often one member passes on an update: twice the bits of the member count, at least
/// 6. (`4 log10(n + 1)`, serf's rule, is a little less.)
fn transmissions(members: usize) -> NonZeroU8 {
    let log = u8::try_from((members + 1).ilog2() + 1).unwrap_or(u8::MAX);
    NonZeroU8::new((2 * log).clamp(6, 30)).unwrap_or(NonZeroU8::MIN)
}
