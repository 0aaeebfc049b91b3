//! Typed access to a document without problems.

use super::field::{Field, Items};
use super::tree::Node;

/// A document, or an item of one of its lists, that has passed the check and the rules.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a>(&'a Node);

impl<'a> Checked<'a> {
    /// Only `rules::check` calls this.
    pub(super) fn new(root: &'a Node) -> Self {
        Self(root)
    }

    /// The value of a field.
    pub(super) fn get<V>(self, field: &Field<V>) -> V {
        field.find(self.0).expect("the check parsed the value, and a rule requires it")
    }

    /// The items of a list of mappings.
    pub(super) fn items(self, list: &Field<Items>) -> impl Iterator<Item = Self> {
        self.0.at(list.path()).map_or(&[][..], Node::items).iter().map(Self)
    }
}
