//! References from documents and comments to the tree: paths of files and folders, links with their
//! anchors, and names from the source. It resolves nothing outside of the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::prose;

/// Endings of a file's name that make a word a path, wherever it begins.
const ENDINGS: [&str; 5] = [".rs", ".proto", ".sh", ".md", ".toml"];

/// Names in documents that are not ours: a setting of Consul, and a key of a formula.
const FOREIGN: [&str; 2] = ["bootstrap_expect", "k_side"];

/// A tree that references may point to.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files and folders, relative to the root.
    paths: BTreeSet<String>,
    /// Every path without any number of its leading folders.
    tails: BTreeSet<String>,
    /// Words of all files that are not documents.
    words: BTreeSet<String>,
    /// Text of each document, by path.
    documents: BTreeMap<String, String>,
    /// Whole-line comments of each source file, by path.
    comments: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the tree below `root`. The fuzz corpus has no references and is left out.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        for file in prose::files(root)? {
            let path = file.strip_prefix(root)?.to_str().context("a path is not UTF-8")?;
            let text = match fs::read(&file) {
                Ok(bytes) if !path.contains("/corpus/") => String::from_utf8(bytes).ok(),
                _ => None,
            };
            tree.add(path, text.as_deref().unwrap_or_default());
        }
        Ok(tree)
    }

    /// Adds one file and the folders that it is in.
    pub fn add(&mut self, path: &str, text: &str) {
        let parts: Vec<_> = path.split('/').collect();
        for end in 1..=parts.len() {
            self.paths.insert(parts[..end].join("/"));
            self.tails.extend((0..end).map(|start| parts[start..end].join("/")));
        }
        if has_ending(path, "md") {
            self.documents.insert(path.to_owned(), text.to_owned());
            return;
        }
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        self.words.extend(words.map(str::to_owned));
        if has_ending(path, "rs") {
            self.comments.insert(path.to_owned(), whole_line_comments(text));
        }
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// References that point to nothing, one message each.
    pub fn broken(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (file, text) in &self.documents {
            let mut in_block = false;
            for (number, line) in (1..).zip(text.lines()) {
                in_block ^= line.trim_start().starts_with("```");
                let (links, rest) = split_links(line);
                let links = links.into_iter().filter(|link| !self.resolves(file, link));
                let paths = self.missing_paths(&rest);
                let names = if in_block { Vec::new() } else { self.unknown_names(&rest) };
                let all = links.map(|link| format!("link {link}")).chain(paths).chain(names);
                found.extend(all.map(|problem| format!("{file}:{number}: {problem}")));
            }
        }
        for (file, comments) in &self.comments {
            for (number, line) in (1..).zip(comments.lines()) {
                let paths = self.missing_paths(line);
                found.extend(paths.into_iter().map(|path| format!("{file}:{number}: {path}")));
            }
        }
        found
    }

    /// Returns true if a link in the document `file` leads somewhere.
    fn resolves(&self, file: &str, link: &str) -> bool {
        if ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
            return true;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { Some(file.to_owned()) } else { relative(file, path) };
        let Some(target) = target else { return false };
        if anchor.is_empty() {
            return target.is_empty() || self.paths.contains(&target);
        }
        self.documents.get(&target).is_some_and(|text| anchors(text).contains(anchor))
    }

    /// Words of a line that are written as paths of this tree and are none.
    fn missing_paths(&self, line: &str) -> Vec<String> {
        // In a diff, the new side may be a file that an example adds.
        if line.starts_with("+++ ") {
            return Vec::new();
        }
        let line = line.strip_prefix("--- a/").unwrap_or(line);
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"_./<>*-…".contains(c));
        let words = words.map(|word| word.trim_end_matches('.').trim_end_matches('/'));
        let missing = words.filter(|word| {
            // A placeholder (`<name>`, `*`) ends the part that must exist.
            let fixed = word
                .find(['<', '*', '…'])
                .map_or(*word, |end| word[..end].rsplit_once('/').map_or("", |(folder, _)| folder));
            let Some((top, _)) = fixed.split_once('/') else {
                return ENDINGS.iter().any(|ending| fixed.ends_with(ending) && fixed != *ending)
                    && !self.tails.contains(fixed);
            };
            if self.paths.contains(top) {
                return !self.paths.contains(fixed);
            }
            ENDINGS.iter().any(|ending| fixed.ends_with(ending)) && !self.tails.contains(fixed)
        });
        missing.map(|word| format!("path {word}")).collect()
    }

    /// Names in backticks that no source file has. A JSON name may stand for a Rust one.
    fn unknown_names(&self, line: &str) -> Vec<String> {
        let spans = line.split('`').skip(1).step_by(2);
        let names = spans.filter(|span| {
            let span = span.strip_suffix("()").unwrap_or(span);
            span.split("::").all(is_identifier)
        });
        let parts = names.flat_map(|name| name.trim_end_matches("()").split("::"));
        let unknown = parts.filter(|part| {
            is_compound(part)
                && !self.words.contains(*part)
                && !self.words.contains(&snake_case(part))
                && !FOREIGN.contains(part)
        });
        unknown.map(|name| format!("name {name}")).collect()
    }
}

fn has_ending(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == ending)
}

/// The text with every line blank that is not a comment, so that line numbers stay.
fn whole_line_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_start().strip_prefix("//").unwrap_or_default());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Targets of the links of a line, and the line without them.
fn split_links(line: &str) -> (Vec<&str>, String) {
    let mut links = Vec::new();
    let mut rest = String::new();
    let mut parts = line.split("](");
    rest.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (target, after) = part.split_once(')').unwrap_or((part, ""));
        links.push(target);
        rest.push_str("] ");
        rest.push_str(after);
    }
    (links, rest)
}

/// `path` as written in `file`, from the root; none if it leaves the tree.
fn relative(file: &str, path: &str) -> Option<String> {
    let mut parts: Vec<_> = file.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            "" => return None,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Anchors of a document's headings, as the code hosts derive them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts = BTreeMap::new();
    let mut in_block = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        in_block ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if in_block || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let (_, title) = split_links(title);
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let count = counts.entry(anchor.clone()).or_insert(0);
        anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Returns true for a name of several words. A single word may be any word of a sentence.
fn is_compound(name: &str) -> bool {
    let mut pairs = name.chars().zip(name.chars().skip(1));
    name.contains('_') || pairs.any(|(a, b)| a.is_lowercase() && b.is_uppercase())
}

/// `lastSeenMs` as `last_seen_ms`.
fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut snake, c| {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
        snake
    })
}
