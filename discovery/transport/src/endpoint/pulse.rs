//! Dead-peer detection: tells a silent connection from an idle one by its counters. No clock.
//!
//! QUIC notices a vanished peer by its idle timeout, which must be long because sessions idle. But
//! a live peer acknowledges within a round trip. Silence after a packet that needs an
//! acknowledgement is therefore a fault, and a new dial is the better choice.

/// Counters of one connection at one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// UDP datagrams received.
    pub(crate) heard: u64,
    /// Frames sent that the peer must acknowledge.
    pub(crate) asked: u64,
}

impl Counters {
    pub(crate) fn of(connection: &quinn::Connection) -> Self {
        let stats = connection.stats();
        let sent = &stats.frame_tx;
        // With nothing new to send, quinn probes for a lost packet with IMMEDIATE_ACK.
        let probes = sent.ping + sent.immediate_ack;
        let credit = sent.max_data + sent.max_stream_data;
        Self { heard: stats.udp_rx.datagrams, asked: sent.stream + sent.datagram + probes + credit }
    }
}

/// Silence detector of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    last: Counters,
    silent: u32,
}

impl Pulse {
    pub(crate) fn new(first: Counters) -> Self {
        Self { last: first, silent: 0 }
    }

    /// Takes one sample. Returns the number of samples in a row in which the peer owed an answer
    /// and sent nothing.
    ///
    /// Counts samples, not seconds: a node that was itself starved of CPU must not blame its peers.
    pub(crate) fn look(&mut self, now: Counters) -> u32 {
        if now.heard != self.last.heard {
            self.last = now;
            self.silent = 0;
        } else if self.silent > 0 || now.asked != self.last.asked {
            self.silent += 1;
        }
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(heard: u64, asked: u64) -> Counters {
        Counters { heard, asked }
    }

    #[test]
    fn a_resting_connection_is_never_silent() {
        let mut pulse = Pulse::new(at(7, 7));
        for _ in 0..100 {
            assert_eq!(pulse.look(at(7, 7)), 0);
        }
    }

    #[test]
    fn an_unanswered_question_counts_until_something_is_heard() {
        let mut pulse = Pulse::new(at(7, 7));
        assert_eq!(pulse.look(at(7, 8)), 1);
        assert_eq!(pulse.look(at(7, 8)), 2, "no more was sent, the answer is still owed");
        assert_eq!(pulse.look(at(7, 9)), 3);
        assert_eq!(pulse.look(at(8, 9)), 0);
        assert_eq!(pulse.look(at(8, 9)), 0);
    }
}
