//! YAML as a tree with line numbers.
//!
//! Knows no fields: the check replaces the scalars by their parsed values.
//!
//! Accepts a small, strict subset of YAML 1.2: one document, text keys, no anchors, aliases or tags
//! (so nothing can expand), bounded depth. Every duplicate key is a problem.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use zeroize::Zeroizing;

use super::leaf::Leaf;
use super::problem::Problems;

/// Maximum nesting of lists and mappings. The fields need eight levels.
const MAX_DEPTH: usize = 24;

/// Maximum number of items or keys in one list or mapping.
const MAX_ENTRIES: usize = 1024;

/// A value and the line it starts at.
#[derive(Clone)]
pub(super) struct YamlNode {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    Null,
    /// Any scalar, as written. Wiped when dropped, because it may be the token.
    Scalar {
        text: Zeroizing<String>,
        quoted: bool,
    },
    /// A scalar that the check has parsed.
    Leaf(Leaf),
    List(Vec<YamlNode>),
    Map(Vec<Pair>),
}

/// A key of a mapping with its value.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: YamlNode,
}

impl YamlNode {
    pub(super) fn null(line: usize) -> Self {
        Self { line, value: Value::Null }
    }

    /// The child with that key, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        let node = &entries.iter().find(|entry| entry.key == key)?.node;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The descendant at a dotted path, unless it is absent or null.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// The parsed value, if it has that type.
    pub(super) fn leaf<T: 'static>(&self) -> Option<&T> {
        match &self.value {
            Value::Leaf(leaf) => leaf.get(),
            Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    /// Returns whether every existing parent on the path is a mapping.
    pub(super) fn can_contain(&self, path: &str) -> bool {
        let mut node = self;
        for key in path.split('.') {
            if !node.is_map() {
                return false;
            }
            match node.get(key) {
                Some(child) => node = child,
                None => return true,
            }
        }
        true
    }

    /// Line of the descendant at a dotted path, or of its nearest existing parent mapping.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        for key in path.split('.') {
            match node.get(key) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.line
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Scalar { .. } | Value::Leaf(_) | Value::Map(_) => &[],
        }
    }

    /// Removes the child with that key.
    pub(super) fn remove(&mut self, key: &str) {
        if let Value::Map(entries) = &mut self.value {
            entries.retain(|entry| entry.key != key);
        }
    }

    /// Removes the descendant at a dotted path.
    pub(super) fn remove_at(&mut self, path: &str) {
        match path.split_once('.') {
            None => self.remove(path),
            Some((key, below)) => {
                if let Value::Map(entries) = &mut self.value
                    && let Some(entry) = entries.iter_mut().find(|entry| entry.key == key)
                {
                    entry.node.remove_at(below);
                }
            }
        }
    }

    /// Adds a quoted scalar at a dotted path, below mappings only.
    pub(super) fn add_text(&mut self, path: &str, text: &str) {
        if !self.can_contain(path) {
            return;
        }
        let scalar = Value::Scalar { text: text.to_owned().into(), quoted: true };
        let line = self.line_of(path);
        let added = path.rsplit('.').fold(Self { line, value: scalar }, |node, key| {
            let entry = Pair { key: key.to_owned(), line, node };
            Self { line, value: Value::Map(vec![entry]) }
        });
        self.merge(&added);
    }

    /// The items of the list with that key, to be changed.
    pub(super) fn items_mut(&mut self, key: &str) -> &mut [Self] {
        let Value::Map(entries) = &mut self.value else { return &mut [] };
        match entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node.value) {
            Some(Value::List(items)) => items,
            _ => &mut [],
        }
    }

    /// Applies a JSON merge patch (RFC 7396): mappings are merged key by key, null removes,
    /// anything else replaces. Values from the patch keep the patch's line.
    pub(super) fn merge(&mut self, patch: &Self) {
        let Value::Map(changes) = &patch.value else {
            *self = patch.clone();
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            *self = Self { line: patch.line, value: Value::Map(Vec::new()) };
        }
        let Value::Map(entries) = &mut self.value else { return };
        for change in changes {
            let found = entries.iter().position(|entry| entry.key == change.key);
            match (&change.node.value, found) {
                (Value::Null, Some(at)) => drop(entries.remove(at)),
                (Value::Null, None) => {}
                (_, Some(at)) => entries[at].node.merge(&change.node),
                (_, None) => {
                    let mut node = Self::null(change.line);
                    node.merge(&change.node);
                    entries.push(Pair { key: change.key.clone(), line: change.line, node });
                }
            }
        }
    }
}

/// Reads one YAML document. Returns `None`, with the reason in `problems`, if reading stops early.
pub(super) fn load(text: &str, problems: &mut Problems) -> Option<YamlNode> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder { open: Vec::new(), root: None, documents: 0 };
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => builder.on_event(event, span, problems)?,
            Err(error) => {
                let line = error.marker().line().max(1);
                problems.add(line, "", format!("is not YAML: {}", error.info()));
                return None;
            }
        }
    }
    Some(builder.root.unwrap_or_else(|| YamlNode::null(1)))
}

/// A list or mapping that is not complete yet.
enum Open {
    List { line: usize, items: Vec<YamlNode> },
    Map { line: usize, entries: Vec<Pair>, key: Option<(String, usize)> },
}

impl Open {
    fn len(&self) -> usize {
        match self {
            Self::List { items, .. } => items.len(),
            Self::Map { entries, .. } => entries.len(),
        }
    }
}

struct Builder {
    open: Vec<Open>,
    root: Option<YamlNode>,
    documents: usize,
}

impl Builder {
    /// Handles one parser event; `None` stops reading.
    fn on_event(&mut self, event: Event<'_>, span: Span, problems: &mut Problems) -> Option<()> {
        let line = span.start.line().max(1);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Some(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    problems.add(line, "", "has a second document (`---`): only one is allowed");
                    return None;
                }
                Some(())
            }
            Event::Alias(_) => {
                problems.add(line, &self.path(), "is an alias (`*name`): write the value out");
                self.insert(YamlNode::null(line), problems)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.reject_anchor_and_tag(line, anchor, tag.is_some(), problems);
                let quoted = style != ScalarStyle::Plain;
                let null = !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = Zeroizing::new(text.into_owned());
                let value = if null { Value::Null } else { Value::Scalar { text, quoted } };
                self.insert(YamlNode { line, value }, problems)
            }
            Event::SequenceStart(anchor, tag) => {
                self.reject_anchor_and_tag(line, anchor, tag.is_some(), problems);
                self.push(Open::List { line, items: Vec::new() }, line, problems)
            }
            Event::MappingStart(anchor, tag) => {
                self.reject_anchor_and_tag(line, anchor, tag.is_some(), problems);
                self.push(Open::Map { line, entries: Vec::new(), key: None }, line, problems)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop()? {
                    Open::List { line, items } => YamlNode { line, value: Value::List(items) },
                    Open::Map { line, entries, .. } => {
                        YamlNode { line, value: Value::Map(entries) }
                    }
                };
                self.insert(node, problems)
            }
        }
    }

    fn reject_anchor_and_tag(
        &self,
        line: usize,
        anchor: usize,
        tagged: bool,
        problems: &mut Problems,
    ) {
        if anchor != 0 {
            problems.add(line, &self.path(), "has an anchor (`&name`): write each value out");
        }
        if tagged {
            problems.add(line, &self.path(), "has a tag (`!name`): write the plain value");
        }
    }

    fn push(&mut self, open: Open, line: usize, problems: &mut Problems) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            problems.add(line, "", format!("is nested deeper than {MAX_DEPTH} levels"));
            return None;
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            problems.add(line, &self.path(), "has a list or mapping as a key: keys are text");
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn insert(&mut self, node: YamlNode, problems: &mut Problems) -> Option<()> {
        let path = self.path();
        if self.open.last().is_some_and(|open| open.len() >= MAX_ENTRIES) {
            problems.add(node.line, "", format!("has over {MAX_ENTRIES} items or keys"));
            return None;
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => {
                let Some((key, line)) = key.take() else {
                    let Value::Scalar { text, .. } = &node.value else {
                        problems.add(node.line, &path, "has an empty key");
                        return None;
                    };
                    *key = Some(((**text).clone(), node.line));
                    return Some(());
                };
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    let message = format!("is set twice, first in line {}", first.line);
                    problems.add(line, &path, message);
                } else {
                    entries.push(Pair { key, line, node });
                }
            }
        }
        Some(())
    }

    /// Dotted path of the next value.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match open {
                Open::List { items, .. } => path.extend(["[", &items.len().to_string(), "]"]),
                Open::Map { key: Some((key, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(key.chars().take(64));
                }
                Open::Map { key: None, .. } => {}
            }
        }
        path
    }
}
