//! Bounded queue of log lines. Pure: no thread and no file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Memory of the queued lines: some thousand lines of a node whose reader pauses.
const MAX_BYTES: usize = 1 << 20;

/// Memory of a queued line next to its text, so that empty lines are bounded as well.
const LINE_OVERHEAD: usize = 64;

/// Interval of the reports about dropped lines while the reader is too slow for all of them.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Queued lines and the number of dropped ones.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines dropped since the last report.
    dropped: u64,
    last_report: Option<Instant>,
}

impl Queue {
    /// Queues a line. Drops and counts it if the queue is full.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.bytes + line.len() + LINE_OVERHEAD > MAX_BYTES {
            self.add_dropped();
        } else {
            self.push_always(line);
        }
    }

    /// Queues a line even if the queue is full. Only for lines whose number is bounded.
    pub(super) fn push_always(&mut self, line: &[u8]) {
        self.bytes += line.len() + LINE_OVERHEAD;
        self.lines.push_back(line.to_vec());
    }

    /// Takes the oldest line.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len() + LINE_OVERHEAD;
        Some(line)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Counts a line that was not written.
    pub(super) fn add_dropped(&mut self) {
        self.dropped += 1;
    }

    /// Returns the number of dropped lines if it is time to report them. To be called after a line
    /// was written: the reader reads again.
    pub(super) fn take_dropped(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.is_empty()
            || self.last_report.is_none_or(|last| now.duration_since(last) >= REPORT_INTERVAL);
        if self.dropped == 0 || !is_due {
            return None;
        }
        self.last_report = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let mut queue = Queue::default();
        let line = vec![b'x'; 1000];
        for _ in 0..2000 {
            queue.push(&line);
        }
        let kept = queue.lines.len();
        assert!(queue.bytes <= MAX_BYTES && kept > 900, "{kept}");
        queue.push_always(b"the last line\n");
        assert_eq!(queue.lines.len(), kept + 1);
        queue.push(&vec![b'x'; MAX_BYTES]);
        let now = Instant::now();
        assert_eq!(queue.take_dropped(now), Some(2001 - kept as u64));
        assert_eq!(queue.take_dropped(now), None, "reported once");
        while queue.pop().is_some() {}
        assert_eq!((queue.bytes, queue.is_empty()), (0, true));
    }

    #[test]
    fn empty_lines_are_bounded() {
        let mut queue = Queue::default();
        for _ in 0..MAX_BYTES {
            queue.push(b"");
        }
        assert!(queue.lines.len() <= MAX_BYTES / LINE_OVERHEAD, "{}", queue.lines.len());
    }

    /// A report for each dropped line would itself fill the queue.
    #[test]
    fn a_slow_reader_gets_one_report_a_second() {
        let mut queue = Queue::default();
        queue.push(b"queued");
        let start = Instant::now();
        let reports = (0..100).filter(|tick| {
            queue.add_dropped();
            queue.take_dropped(start + Duration::from_millis(tick * 100)).is_some()
        });
        assert_eq!(reports.count(), 10);
        queue.pop();
        assert!(queue.take_dropped(start + Duration::from_secs(10)).is_some(), "it has caught up");
    }
}
