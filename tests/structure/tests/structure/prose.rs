//! Sizes of files and the language of comments.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use muster_structure::prose::{Comments, rust_files};
use muster_structure::{shown, workspace};

/// Longest source file, in lines.
const MAX_LINES: usize = 500;

/// Dialect words that are accepted in 10,000 words of comment. Some are right where they stand, as
/// *who* is of people.
const MAX_DIALECT: usize = 3;

fn sources() -> Result<Vec<(PathBuf, String)>> {
    let files = rust_files(&workspace())?;
    ensure!(files.len() > 300, "only {} source files were found", files.len());
    files.into_iter().map(|file| Ok((file.clone(), fs::read_to_string(file)?))).collect()
}

#[test]
fn no_source_file_is_too_long() -> Result<()> {
    let sizes = sources()?.into_iter().map(|(file, text)| (text.lines().count(), file));
    let long: Vec<_> = sizes
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| format!("{lines} {}", shown(&file)))
        .collect();
    ensure!(long.is_empty(), "more than {MAX_LINES} lines:\n  {}", long.join("\n  "));
    Ok(())
}

#[test]
fn a_summary_line_is_a_noun_phrase_or_a_verb() -> Result<()> {
    let mut found = Vec::new();
    for (file, text) in sources()? {
        let lines = Comments::of(&text).clauses;
        found.extend(lines.iter().map(|line| format!("{}:{line}", shown(&file))));
    }
    ensure!(
        found.is_empty(),
        "{} summary lines begin with What, How, Who, …:\n  {}",
        found.len(),
        found.join("\n  ")
    );
    Ok(())
}

#[test]
fn comments_use_the_words_of_the_field() -> Result<()> {
    let mut words = 0;
    let mut found = Vec::new();
    for (file, text) in sources()? {
        let comments = Comments::of(&text);
        words += comments.words;
        let hits = comments.dialect.iter();
        found.extend(hits.map(|(line, word)| format!("{}:{line}: {word}", shown(&file))));
    }
    ensure!(
        found.len() * 10_000 < MAX_DIALECT * words,
        "{} of {words} words in comments are dialect (see Prose in CONTRIBUTING.md):\n  {}",
        found.len(),
        found.join("\n  ")
    );
    Ok(())
}
