//! Typed access to a document without problems.

use super::field::{Field, MappingList};
use super::tree::YamlNode;

/// A document, or an item of one of its lists, that has passed the check and the rules.
#[derive(Clone, Copy)]
pub(super) struct CheckedDocument<'a>(&'a YamlNode);

impl<'a> CheckedDocument<'a> {
    /// Only `rules::check` calls this.
    pub(super) fn new(root: &'a YamlNode) -> Self {
        Self(root)
    }

    /// The value of a field.
    pub(super) fn get<V>(self, field: &Field<V>) -> V {
        field.find(self.0).expect("the check parsed the value, and a rule requires it")
    }

    /// The items of a list of mappings.
    pub(super) fn items(self, list: &Field<MappingList>) -> impl Iterator<Item = Self> {
        self.0.at(list.path()).map_or(&[][..], YamlNode::items).iter().map(Self)
    }
}
