//! An entry of the table of fields, and the typed access to a field's value.
//!
//! The table itself is in `fields`. This module knows no particular field.

use std::any::Any;

use super::kind::{AnyKind, Form, Kind};
use super::tree::YamlNode;

/// A field with a value of type `V`: `T` if the field is required or has a default, `Option<T>` if
/// it can be absent, `Vec<T>` for a list.
pub(super) struct Field<V> {
    entry: Entry,
    read: fn(&Entry, Option<&YamlNode>) -> Option<V>,
}

/// Marker type of a list of mappings. Their fields have paths such as `cluster.operators[].name`.
pub(super) struct MappingList;

/// Marker type of a mapping with the patchable fields of the document.
pub(super) struct PatchMapping;

/// One field of `node.yaml`: everything but the Rust type of its value.
#[derive(Debug)]
pub struct Entry {
    path: &'static str,
    content: Content,
    presence: Presence,
    patchable: Option<Patchable>,
    disturbs: Option<Disturbs>,
    is_birth_field: bool,
    doc: &'static str,
    note: &'static str,
    example: &'static str,
}

/// Content of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    One(&'static dyn AnyKind),
    Many {
        of: &'static dyn AnyKind,
        max: usize,
        /// No item may occur twice.
        is_set: bool,
        /// A single item may be written without a list.
        or_one: bool,
        /// The message against a list without items. None if it means the same as no list.
        if_empty: Option<&'static str>,
    },
    /// See [`MappingList`].
    MappingList {
        max: usize,
    },
    /// See [`PatchMapping`].
    PatchMapping,
}

/// Meaning of a field's absence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presence {
    /// Always needed. Its absence is reported with this message.
    Required(&'static str),
    /// Needed if the mapping that contains it is there.
    RequiredInSection,
    /// This text is its value. The field's own kind parses it.
    Default(&'static str),
    /// Absence is a value of its own, described by this text in the guide.
    Optional(&'static str),
}

/// Rule for patches of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patchable {
    Always,
    /// Only by patches that do not select by role. The text is the message for others.
    ByName(&'static str),
    /// Never, with the reason for messages.
    Never(&'static str),
}

/// The most that a changed value disturbs on a running node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbs {
    /// No unit uses the value.
    Nothing,
    /// Running units use the new value without a restart.
    Live,
    /// This unit restarts.
    Restart(Unit),
    /// The machine reboots.
    Reboot,
    /// The value is fixed at the cluster's birth, or when the node becomes a member. A later change
    /// has no effect, or the node rejects it.
    BirthOnly,
}

/// A process that a change can restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Musterd,
    Etcd,
}

impl Entry {
    const fn new(path: &'static str, content: Content, presence: Presence) -> Self {
        Self {
            path,
            content,
            presence,
            patchable: None,
            disturbs: None,
            is_birth_field: false,
            doc: "",
            note: "",
            example: "",
        }
    }

    /// Dotted path in the document. Fields of list items have `[]` in it.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Path of the list whose items have this field (`cluster.operators[]`); empty for other
    /// fields.
    pub(super) fn list_path(&self) -> &'static str {
        self.path.rfind("[].").map_or("", |at| &self.path[..at + 2])
    }

    /// Path from the list item, or from the document.
    pub(super) fn local_path(&self) -> &'static str {
        self.path.rfind("[].").map_or(self.path, |at| &self.path[at + 3..])
    }

    pub(super) const fn content(&self) -> Content {
        self.content
    }

    pub(super) const fn presence(&self) -> Presence {
        self.presence
    }

    /// Type of the value, as the guide shows it.
    pub fn type_name(&self) -> String {
        let words = |words: &[&str]| words.join("`, `");
        match self.content {
            Content::One(kind) => match kind.form() {
                Form::Word(known) => format!("`{}`", words(known)),
                _ => kind.names()[0].to_owned(),
            },
            Content::Many { of, max, or_one, .. } => {
                let [one, many] = of.names();
                let one = if or_one { format!("{one}, or ") } else { String::new() };
                format!("{one}list of {many}, at most {max}")
            }
            Content::MappingList { max } => format!("list of mappings, at most {max}"),
            Content::PatchMapping => "mapping of fields".to_owned(),
        }
    }

    /// Meaning of the field's absence, as the guide shows it.
    pub fn default_text(&self) -> String {
        match self.presence {
            Presence::Required(_) => "required".to_owned(),
            Presence::RequiredInSection => "required in its section".to_owned(),
            Presence::Default(text) => format!("`{text}`"),
            Presence::Optional(text) => text.to_owned(),
        }
    }

    pub const fn patchable(&self) -> Patchable {
        self.patchable.expect("`declared` has checked it")
    }

    pub const fn disturbs(&self) -> Disturbs {
        self.disturbs.expect("`declared` has checked it")
    }

    /// Returns true if founders compare the value before a birth.
    pub const fn is_birth_field(&self) -> bool {
        self.is_birth_field
    }

    /// One short sentence, for the guide, the JSON Schema and the template.
    pub const fn doc(&self) -> &'static str {
        self.doc
    }

    /// Further sentences, for the guide and the JSON Schema; may be empty.
    pub const fn note(&self) -> &'static str {
        self.note
    }

    /// YAML value that the template shows in a comment; empty for none.
    pub(super) const fn example(&self) -> &'static str {
        self.example
    }
}

impl<V> Field<V> {
    pub(super) const fn patchable(mut self, patchable: Patchable) -> Self {
        self.entry.patchable = Some(patchable);
        self
    }

    pub(super) const fn disturbs(mut self, disturbs: Disturbs) -> Self {
        self.entry.disturbs = Some(disturbs);
        self
    }

    pub(super) const fn birth_field(mut self) -> Self {
        self.entry.is_birth_field = true;
        self
    }

    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.entry.doc = doc;
        self
    }

    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.entry.note = note;
        self
    }

    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.entry.example = example;
        self
    }

    /// Fails to compile if the entry leaves something open.
    pub(super) const fn declared(self) -> Self {
        assert!(self.entry.patchable.is_some(), "a field needs `patchable`");
        assert!(self.entry.disturbs.is_some(), "a field needs `disturbs`");
        assert!(!self.entry.doc.is_empty(), "a field needs `doc`");
        self
    }

    pub(super) const fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) const fn path(&self) -> &'static str {
        self.entry.path
    }

    /// The value in a document, or in a list item. `None` if a required value is missing, or if the
    /// check has rejected the value.
    pub(super) fn find(&self, within: &YamlNode) -> Option<V> {
        (self.read)(&self.entry, within.at(self.entry.local_path()))
    }
}

impl<T: Any + Send + Sync + Clone> Field<T> {
    pub(super) const fn required(path: &'static str, kind: &'static Kind<T>) -> Self {
        let presence = Presence::Required("is missing");
        Self { entry: Entry::new(path, Content::One(kind), presence), read: read_one }
    }

    /// Message for a required field that is missing.
    pub(super) const fn if_missing(mut self, message: &'static str) -> Self {
        self.entry.presence = Presence::Required(message);
        self
    }

    /// A field with a default, written as in the document.
    pub(super) const fn with_default(
        path: &'static str,
        kind: &'static Kind<T>,
        default: &'static str,
    ) -> Self {
        let presence = Presence::Default(default);
        Self { entry: Entry::new(path, Content::One(kind), presence), read: read_one }
    }
}

impl<T: Any + Send + Sync + Clone> Field<Option<T>> {
    /// `absent` describes the absence, for the guide.
    pub(super) const fn optional(
        path: &'static str,
        kind: &'static Kind<T>,
        absent: &'static str,
    ) -> Self {
        let presence = Presence::Optional(absent);
        Self {
            entry: Entry::new(path, Content::One(kind), presence),
            read: |_, node| Some(read_optional(node)),
        }
    }

    /// See [`Presence::RequiredInSection`].
    pub(super) const fn required_in_section(path: &'static str, kind: &'static Kind<T>) -> Self {
        let presence = Presence::RequiredInSection;
        Self {
            entry: Entry::new(path, Content::One(kind), presence),
            read: |_, node| Some(read_optional(node)),
        }
    }
}

impl<T: Any + Send + Sync + Clone> Field<Vec<T>> {
    /// A list of at most `max` items. `absent` describes the empty list, for the guide.
    pub(super) const fn list(
        path: &'static str,
        of: &'static Kind<T>,
        max: usize,
        absent: &'static str,
    ) -> Self {
        let content = Content::Many { of, max, is_set: false, or_one: false, if_empty: None };
        Self {
            entry: Entry::new(path, content, Presence::Optional(absent)),
            read: |_, node| Some(read_list(node)),
        }
    }

    /// Rejects an item that occurs twice.
    pub(super) const fn set(mut self) -> Self {
        if let Content::Many { is_set, .. } = &mut self.entry.content {
            *is_set = true;
        }
        self
    }

    /// Accepts a single item without a list.
    pub(super) const fn or_one(mut self) -> Self {
        if let Content::Many { or_one, .. } = &mut self.entry.content {
            *or_one = true;
        }
        self
    }

    /// Rejects a list without items, with this message.
    pub(super) const fn reject_empty(mut self, message: &'static str) -> Self {
        if let Content::Many { if_empty, .. } = &mut self.entry.content {
            *if_empty = Some(message);
        }
        self
    }

    /// The valid items, each with its line.
    pub(super) fn find_with_lines(&self, within: &YamlNode) -> Vec<(T, usize)> {
        let items = within.at(self.entry.local_path()).map_or(&[][..], YamlNode::items);
        items.iter().filter_map(|item| Some((item.leaf::<T>()?.clone(), item.line))).collect()
    }
}

impl Field<MappingList> {
    /// A list of mappings, at most `max`.
    pub(super) const fn items(path: &'static str, max: usize) -> Self {
        let entry = Entry::new(path, Content::MappingList { max }, Presence::Optional(""));
        Self { entry, read: |_, _| Some(MappingList) }
    }

    /// Needs at least one item. An empty or missing list is reported with this message.
    pub(super) const fn not_empty(mut self, message: &'static str) -> Self {
        self.entry.presence = Presence::Required(message);
        self
    }
}

impl Field<PatchMapping> {
    pub(super) const fn changes(path: &'static str) -> Self {
        let entry = Entry::new(path, Content::PatchMapping, Presence::Required("is missing"));
        Self { entry, read: |_, _| Some(PatchMapping) }
    }
}

fn read_one<T: Any + Clone>(entry: &Entry, node: Option<&YamlNode>) -> Option<T> {
    match (node, entry.presence, entry.content) {
        (Some(node), ..) => node.leaf().cloned(),
        (None, Presence::Default(text), Content::One(kind)) => {
            kind.parse(text).ok()?.get().cloned()
        }
        (None, ..) => None,
    }
}

fn read_optional<T: Any + Clone>(node: Option<&YamlNode>) -> Option<T> {
    node.and_then(YamlNode::leaf).cloned()
}

fn read_list<T: Any + Clone>(node: Option<&YamlNode>) -> Vec<T> {
    let Some(node) = node else { return Vec::new() };
    // A single item without a list is a leaf itself.
    let items = node.leaf::<T>().into_iter().chain(node.items().iter().filter_map(YamlNode::leaf));
    items.cloned().collect()
}
