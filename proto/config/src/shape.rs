//! The nesting of the document's mappings and lists, derived from the paths of the table of fields.

use std::sync::LazyLock;

use super::field::{Content, Entry, Patchable};
use super::fields::fields;

/// Shape of a value in the document.
#[derive(Debug)]
pub(super) enum Shape {
    Map(Map),
    /// A list of mappings.
    MappingList {
        entry: &'static Entry,
        max: usize,
        of: Map,
    },
    /// The document's patchable fields.
    PatchMapping {
        entry: &'static Entry,
        map: Map,
    },
    /// A scalar, or a list of scalars.
    Value(&'static Entry),
}

/// Known keys of a mapping, in the order of the table.
#[derive(Debug, Default)]
pub(super) struct Map(Vec<(&'static str, Shape)>);

/// The whole document.
pub(super) static DOCUMENT_SHAPE: LazyLock<Map> = LazyLock::new(|| Map::of(fields()));

impl Map {
    fn of(entries: impl Iterator<Item = &'static Entry>) -> Self {
        let mut map = Self::default();
        for entry in entries {
            map.insert(entry.path(), entry);
        }
        map
    }

    fn insert(&mut self, path: &'static str, entry: &'static Entry) {
        match path.split_once('.') {
            Some((name, below)) => self.below(name).insert(below, entry),
            None => self.0.push((path, Shape::of(entry))),
        }
    }

    /// The mapping at `name` (`network`), or of each item at `name` (`operators[]`).
    fn below(&mut self, name: &'static str) -> &mut Self {
        let name = name.strip_suffix("[]").unwrap_or(name);
        let at = self.0.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.0.push((name, Shape::Map(Self::default())));
            self.0.len() - 1
        });
        match &mut self.0[at].1 {
            Shape::Map(map)
            | Shape::MappingList { of: map, .. }
            | Shape::PatchMapping { map, .. } => map,
            Shape::Value(entry) => panic!("{} is a value and has fields", entry.path()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Shape> {
        self.0.iter().find_map(|(known, shape)| (*known == name).then_some(shape))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Shape)> {
        self.0.iter().map(|(name, shape)| (*name, shape))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Every path below this mapping, but not inside lists. A mapping follows its fields.
    pub(super) fn paths(&self, above: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (name, shape) in self.iter() {
            let path = child_path(above, name);
            if let Shape::Map(map) = shape {
                found.extend(map.paths(&path));
            }
            found.push(path);
        }
        found
    }
}

impl Shape {
    fn of(entry: &'static Entry) -> Self {
        match entry.content() {
            Content::One(_) | Content::Many { .. } => Self::Value(entry),
            Content::MappingList { max } => Self::MappingList { entry, max, of: Map::default() },
            Content::PatchMapping => Self::PatchMapping { entry, map: Map::of(patchable()) },
        }
    }
}

fn patchable() -> impl Iterator<Item = &'static Entry> {
    fields().filter(|entry| !matches!(entry.patchable(), Patchable::Never(_)))
}

/// The dotted path of a child.
pub(super) fn child_path(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
