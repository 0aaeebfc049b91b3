//! What happens while a command waits: moving lines on a terminal, plain lines elsewhere. Goes to
//! the standard error, so that answers stay clean.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// One line per thing that is waited for.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    lines: BTreeMap<String, Line>,
}

struct Line {
    /// What the line is about; another one is worth a line of its own.
    substance: String,
    text: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, lines: BTreeMap::new() }
    }

    /// Whether each thing told is a line of its own: only then its substance counts.
    pub(crate) fn is_plain(&self) -> bool {
        self.bars.is_none()
    }

    /// Says what `subject` is doing. Repeating what was said last says nothing.
    pub(crate) fn say(&mut self, subject: &str, text: &str) {
        self.tell(subject, text, text);
    }

    /// As [`Self::say`], with words that may move while the `substance` stays the same: a moving line
    /// follows them, another plain line is not worth it.
    pub(crate) fn tell(&mut self, subject: &str, substance: &str, text: &str) {
        let text = super::plain(text);
        let Some(bars) = &self.bars else {
            if self.lines.get(subject).is_none_or(|line| line.substance != substance) {
                let line = Line { substance: substance.to_owned(), text: text.clone(), bar: None };
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
            Line { substance: substance.to_owned(), text: String::new(), bar: Some(bar) }
        });
        if line.text != text {
            line.text.clone_from(&text);
            if let Some(bar) = &line.bar {
                bar.set_message(text);
            }
        }
    }

    /// Takes the moving lines away; plain lines stay.
    pub(crate) fn finish(self) {
        for line in self.lines.values() {
            if let Some(bar) = &line.bar {
                bar.finish_and_clear();
            }
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix:<12} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
