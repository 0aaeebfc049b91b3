//! Problems of a document and their presentation.

use std::fmt;

/// Most problems printed for one document; a file of another kind has thousands.
const MAX_REPORTED: usize = 50;

/// One problem of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// Dotted path of the field (`patches[0].match.name`); empty for the file as a whole.
    pub path: String,
    /// Description and remedy. Never contains the value of a secret field.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.line, self.message)
        } else {
            write!(f, "{}: {}: {}", self.line, self.path, self.message)
        }
    }
}

/// All problems of a document, in file order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {}:\n{}", count(problems.len()), self.render("line "))]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// One problem per line, prefixed with the file: `node.yaml:7: cluster.expct: unknown field`.
    pub fn in_file(&self, file: &str) -> String {
        self.render(&format!("{file}:"))
    }

    fn render(&self, prefix: &str) -> String {
        let mut lines: Vec<String> =
            self.problems.iter().take(MAX_REPORTED).map(|p| format!("{prefix}{p}")).collect();
        if let Some(more) = self.problems.len().checked_sub(MAX_REPORTED).filter(|more| *more > 0) {
            lines.push(format!("… and {more} more"));
        }
        lines.join("\n")
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

/// Collects problems while a document is checked.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, line: usize, path: &str, message: impl Into<String>) {
        self.0.push(Problem { line, path: path.to_owned(), message: message.into() });
    }

    pub(super) fn extend(&mut self, error: ConfigError) {
        self.0.extend(error.problems);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value, or all problems, sorted by line and deduplicated. A missing value always
    /// has at least one problem.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        debug_assert!(value.is_some() || !self.0.is_empty(), "rejected without a problem");
        self.0.sort();
        self.0.dedup();
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(ConfigError { problems: self.0 }),
        }
    }
}
