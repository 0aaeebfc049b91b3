//! Patches of a document, and the ones that select a node.

use std::collections::{BTreeMap, BTreeSet};

use super::field::Patchable;
use super::fields::fields;
use super::fields::patches::{MATCH_NAME, MATCH_ROLE, PATCH, PATCHES};
use super::pattern::Pattern;
use super::problem::Problems;
use super::tree::YamlNode;
use muster_types::{NodeName, Role};

/// Most names and patterns in one message.
const MAX_SHOWN: usize = 5;

/// The valid patches, in file order.
#[derive(Clone, Default)]
pub(super) struct Patches {
    all: Vec<Patch>,
    /// Indexes of the patches that list a name without a wildcard. A document may list many names,
    /// and each of these nodes is checked.
    by_name: BTreeMap<NodeName, Vec<usize>>,
    /// Indexes of the patches with a wildcard, or for every name.
    by_pattern: Vec<usize>,
}

#[derive(Clone)]
pub(super) struct Patch {
    /// Those with a wildcard.
    patterns: Vec<Pattern>,
    is_for_every_name: bool,
    pub(super) role: Option<Role>,
    pub(super) change: YamlNode,
}

impl Patches {
    /// Reads the patches of a document. Invalid ones are reported and skipped.
    pub(super) fn read(root: &YamlNode, problems: &mut Problems) -> Self {
        let mut found = Self::default();
        let items = root.at(PATCHES.path()).map_or(&[][..], YamlNode::items);
        for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_map()) {
            let path = format!("{}[{index}]", PATCHES.path());
            let is_set = |field: &str| item.at(field).is_some();
            let has_role = is_set(MATCH_ROLE.entry().local_path());
            let has_name = is_set(MATCH_NAME.entry().local_path());
            if !has_role && !has_name {
                let message = "needs `name` or `role` to select nodes";
                problems.add(item.line, &format!("{path}.match"), message);
            }
            let Some(change) = item.at(PATCH.entry().local_path()) else { continue };
            if has_role {
                by_name_only(change, &path, problems);
            }
            let names = has_name.then(|| MATCH_NAME.find(item).unwrap_or_default());
            let role = MATCH_ROLE.find(item).flatten();
            found.add(names, role, change.clone());
        }
        found
    }

    /// Adds a patch for these names; `None` for every name.
    fn add(&mut self, names: Option<Vec<Pattern>>, role: Option<Role>, change: YamlNode) {
        let index = self.all.len();
        let is_for_every_name = names.is_none();
        let mut patterns = Vec::new();
        for pattern in names.into_iter().flatten() {
            match pattern.literal() {
                Some(name) => self.by_name.entry(name).or_default().push(index),
                None => patterns.push(pattern),
            }
        }
        if is_for_every_name || !patterns.is_empty() {
            self.by_pattern.push(index);
        }
        self.all.push(Patch { patterns, is_for_every_name, role, change });
    }

    /// The names and patterns of the patches that change the field at this path, as written.
    pub(super) fn with(&self, path: &str) -> Vec<String> {
        let changes = |patch: &&Patch| patch.change.at(path).is_some();
        let patterns = self.all.iter().filter(changes).flat_map(|patch| &patch.patterns);
        let names = self.by_name.iter().filter(|(_, patches)| {
            patches.iter().any(|index| self.all[*index].change.at(path).is_some())
        });
        let shown = patterns.map(|pattern| pattern.as_str().to_owned());
        shown.chain(names.map(|(name, _)| name.to_string())).take(MAX_SHOWN).collect()
    }

    /// Number of patches.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The names that patches list without a wildcard.
    pub(super) fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.by_name.keys()
    }

    /// The patches that select this name, for any role, in file order.
    pub(super) fn of_name(&self, name: &NodeName) -> impl Iterator<Item = &Patch> {
        let listed = self.by_name.get(name).into_iter().flatten().copied();
        let matching = |index: &usize| {
            let patch = &self.all[*index];
            patch.is_for_every_name || patch.patterns.iter().any(|pattern| pattern.matches(name))
        };
        let matched = self.by_pattern.iter().copied().filter(matching);
        let selected: BTreeSet<usize> = listed.chain(matched).collect();
        selected.into_iter().map(|index| &self.all[index])
    }
}

/// Reports the fields of a patch for a role that only patches by name can change.
fn by_name_only(change: &YamlNode, path: &str, problems: &mut Problems) {
    for entry in fields() {
        if let (Patchable::ByName(message), Some(node)) =
            (entry.patchable(), change.at(entry.path()))
        {
            problems.add(node.line, &format!("{path}.patch.{}", entry.path()), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    /// Line numbers of the selecting patches; each patch has its own.
    fn selecting(patches: &Patches, name: &str) -> Vec<usize> {
        patches.of_name(&name.parse().unwrap()).map(|patch| patch.change.line).collect()
    }

    #[test]
    fn patches_are_selected_by_list_pattern_and_for_every_name_in_file_order() {
        let mut patches = Patches::default();
        for (line, names) in [
            Some(patterns(&["a", "b", "a"])),
            None,
            Some(patterns(&["?", "-x"])),
            Some(patterns(&["b*", "b"])),
            Some(patterns(&[])),
        ]
        .into_iter()
        .enumerate()
        {
            patches.add(names, None, YamlNode::null(line));
        }
        assert_eq!(selecting(&patches, "a"), [0, 1, 2]);
        assert_eq!(selecting(&patches, "b"), [0, 1, 2, 3]);
        assert_eq!(selecting(&patches, "bc"), [1, 3]);
        assert_eq!(selecting(&patches, "other"), [1]);
    }

    /// Each of n listed names was compared with all n: a document of 256 KiB took minutes.
    #[test]
    fn a_listed_name_is_looked_up_and_not_compared_with_every_other() {
        let mut patches = Patches::default();
        for patch in 0..256 {
            let names: Vec<_> = (0..256).map(|node| format!("n{patch}-{node}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            patches.add(Some(patterns(&names)), None, YamlNode::null(patch));
        }
        assert_eq!(patches.names().count(), 1 << 16);
        assert!(patches.by_pattern.is_empty(), "a name without a wildcard is compared");
        assert_eq!(selecting(&patches, "n77-255"), [77]);
    }
}
