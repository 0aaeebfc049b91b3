//! Dead-peer detection: tells a silent connection from an idle one by its counters. No clock.
//!
//! QUIC notices a vanished peer by its idle timeout, which must be long because sessions idle. But
//! a live peer acknowledges within a round trip. Silence after a packet that needs an
//! acknowledgement is therefore a fault, and a new dial is the better choice.

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

    /// Takes one sample. Returns the number of samples in a row in which the peer owed an answer
    /// and sent nothing.
    ///
    /// Counts samples, not seconds: a node that was itself starved of CPU must not blame its peers.
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
}
