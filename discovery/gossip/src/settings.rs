//! How often and how patiently members look at each other.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use super::wire::MAX_DATAGRAM;

/// The protocol's parameters. The defaults are for one site. At rest each member sends 85 bytes per
/// second in five datagrams (375 with headers), however many members there are; what else they give
/// is in docs/proof/discovery.md (`gossip-scale` simulates it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Each member asks one other, chosen at random without repetition, once per period.
    pub probe_period: Duration,
    /// How long an answer may take before others are asked to try; less than the period.
    pub probe_rtt: Duration,
    /// How many others are asked to try.
    pub indirect_probes: usize,
    /// How long an accused member may take to refute, when all is calm.
    pub suspicion: Duration,
    /// How often the accuser tells the accused.
    pub nag: Duration,
    /// How often news is passed on, and to how many.
    pub gossip_period: Duration,
    pub gossip_fanout: usize,
    /// How often members that are not seen are looked for: at first, and at last; and how many.
    pub seek_first: Duration,
    pub seek_last: Duration,
    pub seek_fanout: usize,
    /// How often queued cards are sent, and how many at a time.
    pub card_period: Duration,
    pub card_fanout: usize,
    /// Up to this many members, cards are sent unasked.
    pub card_push_below: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            probe_period: ms(400),
            probe_rtt: ms(150),
            indirect_probes: 4,
            suspicion: ms(1500),
            nag: ms(200),
            gossip_period: ms(100),
            gossip_fanout: 3,
            seek_first: ms(100),
            seek_last: ms(1000),
            seek_fanout: 3,
            card_period: ms(100),
            card_fanout: 4,
            card_push_below: 256,
        }
    }
}

/// How many steps of strain are counted; each adds one base suspicion time.
pub(crate) const MAX_STRAIN: u8 = 4;

impl Settings {
    /// foca's configuration for `members` members under `strain`.
    pub(crate) fn foca(&self, members: usize, strain: u8) -> Config {
        Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: positive(self.indirect_probes),
            max_transmissions: transmissions(members),
            suspect_to_down_after: self.suspicion * (1 + u32::from(strain.min(MAX_STRAIN))),
            remove_down_after: None, // the directory bounds the view, time does not
            max_packet_size: positive(MAX_DATAGRAM),
            notify_down_members: true,
            periodic_announce: None, // the core seeks by the directory, and so misses nobody
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

/// How often one piece of news is passed on by one member: twice the bits of the member count, at
/// least 6. (`4 log10(n + 1)`, serf's rule, is a little less.)
fn transmissions(members: usize) -> NonZeroU8 {
    let log = u8::try_from((members + 1).ilog2() + 1).unwrap_or(u8::MAX);
    NonZeroU8::new((2 * log).clamp(6, 30)).unwrap_or(NonZeroU8::MIN)
}
