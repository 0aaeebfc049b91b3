//! The last lines of an output, for error messages.

use std::collections::VecDeque;

/// Longest line kept, in bytes; the rest of a longer one is dropped.
const MAX_LINE: usize = 2048;

/// The last `keep` lines of an output, in bounded memory.
#[derive(Debug)]
pub struct LastLines {
    keep: usize,
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl LastLines {
    pub fn new(keep: usize) -> Self {
        Self { keep, lines: VecDeque::with_capacity(keep), open: Vec::new() }
    }

    /// Adds the next chunk of the output. A chunk may end in the middle of a line or a character.
    pub fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let free = MAX_LINE.saturating_sub(self.open.len());
            self.open.extend(part.iter().filter(|byte| **byte != b'\n').take(free));
            if part.ends_with(b"\n") {
                self.close();
            }
        }
    }

    /// Returns the lines, oldest first, including an unfinished last one.
    pub fn finish(mut self) -> Vec<String> {
        self.close();
        self.lines.into()
    }

    fn close(&mut self) {
        let text = String::from_utf8_lossy(&self.open);
        let text = text.replace(|c: char| c.is_control() && c != '\t', "");
        self.open.clear();
        if text.is_empty() {
            return;
        }
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cut_anywhere_are_put_together_and_old_ones_forgotten() {
        let mut lines = LastLines::new(2);
        for piece in ["on", "e\ntwo\n", "\nthr", "ee"] {
            lines.feed(piece.as_bytes());
        }
        assert_eq!(lines.finish(), ["two", "three"]);
    }

    #[test]
    fn an_endless_line_and_terminal_tricks_stay_bounded_and_plain() {
        let mut lines = LastLines::new(3);
        lines.feed(&vec![b'x'; 3 * MAX_LINE]);
        lines.feed(b"\n\x1b[31mred\xff\r\n");
        let lines = lines.finish();
        assert_eq!(lines[0].len(), MAX_LINE);
        assert_eq!(lines[1], "[31mred\u{fffd}");
    }
}
