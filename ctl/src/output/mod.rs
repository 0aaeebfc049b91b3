//! Output of the commands: a table for people, JSON or YAML for programs. Text from nodes and unknown
//! peers cannot control the terminal in any of them. Decides nothing about the exit code.

mod progress;
mod redact;
mod size;
mod table;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;
use muster_types::text::{is_safe, sanitize_lines};
use serde::Serialize;

pub(crate) use self::progress::Progress;
pub(crate) use self::redact::redact_tokens;
pub(crate) use self::size::format_size;
pub(crate) use self::table::{non_empty, or_dash, table};

/// Prints a notice to standard error, in every output format.
pub(crate) fn print_notice(text: &str) {
    // A closed standard error is no reason to fail.
    writeln!(io::stderr(), "musterctl: {}", sanitize_lines(text)).ok();
}

/// Prints sentences for people to standard error.
fn print_prose(text: &str) {
    if !text.is_empty() {
        // A closed standard error is no reason to fail.
        writeln!(io::stderr(), "{}", sanitize_lines(text)).ok();
    }
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
    /// Data as a table or as lines, without a final newline. Empty for none.
    fn text(&self) -> String {
        String::new()
    }

    /// Sentences for people: what was done, remarks, next steps. They go to standard error, so that
    /// standard output is data only. JSON and YAML have fields instead.
    fn prose(&self) -> String {
        String::new()
    }
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
            Format::Table => {
                let (data, prose) = (view.text(), view.prose());
                if !data.is_empty() {
                    writeln!(self.out, "{}", sanitize_lines(&data))?;
                }
                self.out.flush()?;
                print_prose(&prose);
            }
            Format::Json => writeln!(self.out, "{}", escape(&serde_json::to_string_pretty(view)?))?,
            Format::Yaml => {
                let text = serde_saphyr::to_string(view).map_err(io::Error::other)?;
                // Only a double-quoted scalar can hold an escape, so spaces replace what is left.
                write!(self.out, "{}", sanitize_lines(&text))?;
            }
        }
        self.out.flush()
    }

    /// Prints a sentence for people only; omitted with JSON and YAML output.
    pub(crate) fn note(&self, line: &str) {
        if self.format == Format::Table {
            print_prose(line);
        }
    }

    /// Writes bytes unchanged, for `completion`.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }
}

/// Escapes the characters of a JSON document that must not reach a terminal and that JSON allows
/// unescaped. They occur only within strings, so the data stays the same.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_safe(c) || c == '\n' {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").ok();
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Foreign {
        name: String,
    }

    impl Render for Foreign {
        fn text(&self) -> String {
            table(["NAME"], [[self.name.clone()]])
        }
    }

    fn shown(format: Format, view: &Foreign) -> String {
        let mut bytes = Vec::new();
        Output::new(format, &mut bytes).show(view).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_text_can_neither_steer_the_terminal_nor_reorder_a_line() {
        for unsafe_char in ('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{1b}', '\u{9b}', '\u{7f}'])
        {
            let name = format!("cp-1{unsafe_char}yes");
            let view = Foreign { name: name.clone() };
            for format in [Format::Table, Format::Json, Format::Yaml] {
                let text = shown(format, &view);
                assert!(!text.contains(unsafe_char), "{format:?}: {text:?}");
                assert!(text.contains("cp-1"), "{format:?}: {text:?}");
            }
            let json: serde_json::Value =
                serde_json::from_str(&shown(Format::Json, &view)).unwrap();
            assert_eq!(json["name"], name, "JSON keeps the data");
        }
    }
}
