//! Counts over the comments and the sizes of source files. It reads whole-line comments as text, and
//! knows no grammar beyond a list of words.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Words that the field's English does not use of machines.
const DIALECT: [&str; 30] = [
    "whoever",
    "somebody",
    "nobody",
    "everybody",
    "whatever",
    "for ever",
    "anew",
    "of late",
    "at the most",
    "all the same",
    "is told",
    "are told",
    "was told",
    "were told",
    "tell",
    "tells",
    "beside",
    "mend",
    "mends",
    "mended",
    "borne",
    "who has",
    "who have",
    "who is",
    "who are",
    "who was",
    "who ask",
    "who wait",
    "who come",
    "who leave",
];

/// Words with which no summary line begins.
const CLAUSES: [&str; 8] = ["What", "How", "Why", "Whether", "Where", "Who", "Whose", "Which"];

/// Comments of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comments {
    pub words: usize,
    /// Line number and dialect word.
    pub dialect: Vec<(usize, &'static str)>,
    /// Line numbers of documentation that begins with a clause word.
    pub clauses: Vec<usize>,
}

impl Comments {
    pub fn of(text: &str) -> Self {
        let mut comments = Self::default();
        let mut before = "";
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            if let Some((mark, comment)) = comment(line) {
                comments.words += comment.split_whitespace().count();
                comments.dialect.extend(dialect(comment).map(|word| (number, word)));
                let is_head = mark != "//" && !before.starts_with(mark);
                let first = comment.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
                if is_head && CLAUSES.contains(&first) {
                    comments.clauses.push(number);
                }
            }
            before = line;
        }
        comments
    }
}

fn comment(line: &str) -> Option<(&'static str, &str)> {
    let mut marks = ["///", "//!", "//"].into_iter();
    marks.find_map(|mark| line.strip_prefix(mark).map(|rest| (mark, rest.trim())))
}

fn dialect(comment: &str) -> impl Iterator<Item = &'static str> {
    let words = comment.to_lowercase();
    let words: Vec<_> = words.split(|c: char| !c.is_alphanumeric()).collect();
    let words = format!(" {} ", words.join(" "));
    DIALECT.into_iter().filter(move |word| words.contains(&format!(" {word} ")))
}

/// All Rust files below `folder`, without build directories.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    Ok(files)
}

/// All files below `folder`, without build directories and Git's own.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("target") || name == ".git" {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_that_begins_with_a_clause_word_is_found() {
        let text = "//! How it works.\n\n/// What this is.\n/// Why: more.\nfn f() {}\n\n    \
                    /// Whatever else.\n// Why it is so.\n/// A door.\n/// Who knows.\n";
        assert_eq!(Comments::of(text).clauses, [1, 3]);
        assert_eq!(Comments::of("/// Which\n").clauses, [1]);
    }

    #[test]
    fn dialect_words_are_found_in_comments_only() {
        let text =
            "// Nobody is told.\nlet nobody = \"for ever\";\n    /// For\u{20}ever, besides.\n";
        let comments = Comments::of(text);
        assert_eq!(comments.dialect, [(1, "nobody"), (1, "is told"), (3, "for ever")]);
        assert_eq!(comments.words, 6);
    }
}
