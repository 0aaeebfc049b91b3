//! Output of the commands: a table for people, JSON or YAML for programs.

mod progress;
mod table;

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::progress::Progress;
pub(crate) use self::table::{or_dash, table};

/// Replaces control characters, except newlines. Text from nodes and unknown peers must not control
/// the terminal.
pub(crate) fn sanitize(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Number of characters after a dot that count as a token's secret. It has 38, but some may be
/// lost.
const MIN_SECRET_LEN: usize = 32;

/// Removes the secret of a token that was given as some other argument. A truncated repetition of
/// the secret is removed too.
pub(crate) fn redact_tokens(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "'\"`,;:/)".contains(c);
    let split = |piece: &str| piece.find(ends).unwrap_or(piece.len());
    let words = text.split('.').skip(1).map(|piece| &piece[..split(piece)]);
    let secrets: Vec<&str> = words.filter(|word| word.chars().count() >= MIN_SECRET_LEN).collect();
    let mut pieces = text.split('.');
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (word, rest) = piece.split_at(split(piece));
        let is_secret = !word.is_empty() && secrets.iter().any(|secret| secret.starts_with(word));
        shown.push('.');
        shown.push_str(if is_secret { "…" } else { word });
        shown.push_str(rest);
    }
    shown
}

/// Prints a notice to standard error, in every output format.
pub(crate) fn print_notice(text: &str) {
    // A closed standard error is no reason to fail.
    writeln!(io::stderr(), "musterctl: {}", sanitize(text)).ok();
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// Output of a command. Its JSON and YAML field names are part of the program's interface.
pub(crate) trait Render: Serialize {
    /// Text for people, without a final newline.
    fn text(&self) -> String;
}

/// Destination and format of the output.
pub(crate) struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(crate) fn new(format: Format, out: &'a mut dyn Write) -> Self {
        Self { format, out }
    }

    /// Writes the whole output in the selected format.
    pub(crate) fn show<V: Render>(&mut self, view: &V) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{}", sanitize(&view.text()))?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut *self.out, view)?;
                writeln!(self.out)?;
            }
            Format::Yaml => {
                let text = serde_saphyr::to_string(view).map_err(io::Error::other)?;
                write!(self.out, "{text}")?;
            }
        }
        self.out.flush()
    }

    /// Writes a line for people only; omitted from JSON and YAML output.
    pub(crate) fn note(&mut self, line: &str) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{line}"),
            Format::Json | Format::Yaml => Ok(()),
        }
    }

    /// Writes bytes unchanged, for `completion`.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Renders a view in all three formats, for snapshots.
    pub(crate) fn all_formats<V: Render>(view: &V) -> String {
        [Format::Table, Format::Json, Format::Yaml]
            .map(|format| {
                let mut bytes = Vec::new();
                Output::new(format, &mut bytes).show(view).unwrap();
                String::from_utf8(bytes).unwrap()
            })
            .join("---\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_show_the_secret_of_a_token() {
        let secret = "a2".repeat(19);
        for (around, shown) in [
            (["'", "'"], "'abc.…'"),
            (["\"", "\" is no name"], "\"abc.…\" is no name"),
            (["read /", "/context.yaml: not found"], "read /abc.…/context.yaml: not found"),
            (["look up ", ":50000"], "look up abc.…:50000"),
            (["", ""], "abc.…"),
        ] {
            let [before, after] = around;
            assert_eq!(redact_tokens(&format!("{before}abc.{secret}{after}")), shown);
        }
        let twice = format!("'abc.{secret}': \"abc.{}\" is no role, such as a.b", &secret[..9]);
        assert_eq!(redact_tokens(&twice), "'abc.…': \"abc.…\" is no role, such as a.b");
        for same in ["", ".", "10.0.0.1:50000. See `cp-1.example`…", secret.as_str()] {
            assert_eq!(redact_tokens(same), same);
        }
        assert_eq!(
            redact_tokens(&format!("a.{}", &secret[..MIN_SECRET_LEN - 1])).len(),
            MIN_SECRET_LEN + 1
        );
    }
}
