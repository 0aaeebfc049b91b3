//! How answers are shown: as a table for people, as JSON or YAML for programs.

mod progress;
mod table;

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::progress::Progress;
pub(crate) use self::table::{dash, table};

/// Text for a terminal. Nodes' and strangers' own words are in it: none of them may steer it.
pub(crate) fn plain(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Says something beside the answer, whatever the answer's form.
pub(crate) fn remark(text: &str) {
    // A closed standard error is no reason to fail.
    writeln!(io::stderr(), "musterctl: {}", plain(text)).ok();
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// An answer. Its field names as JSON and YAML are part of the program's interface.
pub(crate) trait View: Serialize {
    /// For people: lines without the last line's end.
    fn text(&self) -> String;
}

/// Where answers go, and in which form.
pub(crate) struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(crate) fn new(format: Format, out: &'a mut dyn Write) -> Self {
        Self { format, out }
    }

    /// Writes the answer whole, in the form that was asked for.
    pub(crate) fn show<V: View>(&mut self, view: &V) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{}", plain(&view.text()))?,
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

    /// A line for people only: programs that read JSON or YAML never see it.
    pub(crate) fn note(&mut self, line: &str) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{line}"),
            Format::Json | Format::Yaml => Ok(()),
        }
    }

    /// Bytes as they are: for `completion`.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A view in all three forms, for snapshots.
    pub(crate) fn all_forms<V: View>(view: &V) -> String {
        [Format::Table, Format::Json, Format::Yaml]
            .map(|format| {
                let mut bytes = Vec::new();
                Output::new(format, &mut bytes).show(view).unwrap();
                String::from_utf8(bytes).unwrap()
            })
            .join("---\n")
    }
}
