//! Progress while a command waits: animated lines on a terminal, plain lines elsewhere. It goes to
//! standard error, so that standard output holds only the result.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use muster_types::text::sanitize_lines;

/// Progress display with one line per subject.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    lines: BTreeMap<String, Line>,
}

struct Line {
    /// Key of the text. A plain line is printed again only when this changes.
    change_key: String,
    text: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, lines: BTreeMap::new() }
    }

    /// Returns true if each change prints a plain line. Only then the key matters.
    pub(crate) fn is_plain(&self) -> bool {
        self.bars.is_none()
    }

    /// Shows the state of `subject`. The same text again prints nothing.
    pub(crate) fn update(&mut self, subject: &str, text: &str) {
        self.update_keyed(subject, text, text);
    }

    /// Like [`Self::update`], for text that may change while its key (`change_key`) stays the same. An
    /// animated line follows every change; a plain line is printed only for a new key.
    pub(crate) fn update_keyed(&mut self, subject: &str, change_key: &str, text: &str) {
        let text = sanitize_lines(text);
        let Some(bars) = &self.bars else {
            if self.lines.get(subject).is_none_or(|line| line.change_key != change_key) {
                let line =
                    Line { change_key: change_key.to_owned(), text: text.clone(), bar: None };
                self.lines.insert(subject.to_owned(), line);
                // A closed standard error is no reason to stop waiting.
                writeln!(io::stderr(), "{subject}: {text}").ok();
            }
            return;
        };
        let line = self.lines.entry(subject.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner().with_style(style()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_prefix(subject.to_owned());
            Line { change_key: change_key.to_owned(), text: String::new(), bar: Some(bar) }
        });
        if line.text != text {
            line.text.clone_from(&text);
            if let Some(bar) = &line.bar {
                bar.set_message(text);
            }
        }
    }

    /// Clears the animated lines of all other subjects: what they wait for is over.
    pub(crate) fn keep_only(&mut self, subjects: &[&str]) {
        if self.is_plain() {
            return;
        }
        self.lines.retain(|subject, line| {
            let stays = subjects.contains(&subject.as_str());
            if let Some(bar) = line.bar.as_ref().filter(|_| !stays) {
                bar.finish_and_clear();
            }
            stays
        });
    }

    /// Clears the animated lines; plain lines stay.
    pub(crate) fn finish(self) {
        for line in self.lines.values() {
            if let Some(bar) = &line.bar {
                bar.finish_and_clear();
            }
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix:<12} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
