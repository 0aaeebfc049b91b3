//! Dead-peer detection: distinguishes a silent connection from an idle one by its counters. No
//! clock.
//!
//! QUIC notices a vanished peer by its idle timeout, which must be long because sessions idle. But
//! a live peer acknowledges within a round trip. Silence after a packet that needs an
//! acknowledgement is therefore a fault, and a new dial is the better choice.

use std::time::Duration;

/// Interval of the checks for silent connections.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(400);

/// Silent samples in a row after which a connection is closed: at least three seconds. QUIC has
/// sent six probes by then on a short, idle path.
const MIN_SILENT_SAMPLES: u32 = 8;

/// Long round trips, from distance or a busy peer, space the probes further apart. The peer then
/// gets this many round trips, up to the limit.
const SILENT_ROUND_TRIPS: u32 = 10;
const MAX_SILENT_SAMPLES: u32 = 25;

/// Returns the number of silent samples that closes a connection with this round trip time.
pub(crate) fn max_silent_samples(round_trip: Duration) -> u32 {
    let timeout = round_trip * SILENT_ROUND_TRIPS;
    let samples = timeout.as_millis() / CHECK_INTERVAL.as_millis();
    u32::try_from(samples)
        .unwrap_or(MAX_SILENT_SAMPLES)
        .clamp(MIN_SILENT_SAMPLES, MAX_SILENT_SAMPLES)
}

/// Counters of one connection at one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// UDP datagrams received.
    pub(crate) received: u64,
    /// Frames sent that the peer must acknowledge.
    pub(crate) ack_eliciting: u64,
}

impl Counters {
    pub(crate) fn of(connection: &quinn::Connection) -> Self {
        let stats = connection.stats();
        let sent = &stats.frame_tx;
        // With nothing new to send, quinn probes for a lost packet with IMMEDIATE_ACK.
        let probes = sent.ping + sent.immediate_ack;
        let credit = sent.max_data + sent.max_stream_data;
        Self {
            received: stats.udp_rx.datagrams,
            ack_eliciting: sent.stream + sent.datagram + probes + credit,
        }
    }
}

/// Silence detector of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadPeerDetector {
    last: Counters,
    silent: u32,
}

impl DeadPeerDetector {
    pub(crate) fn new(first: Counters) -> Self {
        Self { last: first, silent: 0 }
    }

    /// Takes one sample. Returns the number of samples in a row in which a reply was due and
    /// nothing came.
    ///
    /// Counts samples, not seconds: a node that was itself starved of CPU must not report its peers
    /// dead.
    pub(crate) fn sample(&mut self, now: Counters) -> u32 {
        if now.received != self.last.received {
            self.last = now;
            self.silent = 0;
        } else if self.silent > 0 || now.ack_eliciting != self.last.ack_eliciting {
            self.silent += 1;
        }
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(received: u64, ack_eliciting: u64) -> Counters {
        Counters { received, ack_eliciting }
    }

    #[test]
    fn a_resting_connection_is_never_silent() {
        let mut detector = DeadPeerDetector::new(at(7, 7));
        for _ in 0..100 {
            assert_eq!(detector.sample(at(7, 7)), 0);
        }
    }

    #[test]
    fn an_unacknowledged_packet_counts_until_one_is_received() {
        let mut detector = DeadPeerDetector::new(at(7, 7));
        assert_eq!(detector.sample(at(7, 8)), 1);
        assert_eq!(detector.sample(at(7, 8)), 2, "no more was sent, the answer is still owed");
        assert_eq!(detector.sample(at(7, 9)), 3);
        assert_eq!(detector.sample(at(8, 9)), 0);
        assert_eq!(detector.sample(at(8, 9)), 0);
    }

    #[test]
    fn the_silence_limit_grows_with_the_round_trip_and_is_bounded() {
        assert_eq!(max_silent_samples(Duration::from_micros(300)), 8);
        assert_eq!(max_silent_samples(Duration::from_millis(600)), 15);
        assert_eq!(max_silent_samples(Duration::from_hours(1)), 25);
    }
}
