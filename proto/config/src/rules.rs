//! Rules that concern several fields, or the absence of one.
//!
//! A rule skips every value that the check has rejected, so that each problem is reported once.

use super::checked::CheckedDocument;
use super::field::{Content, Entry, Presence};
use super::fields::cluster::{
    EXPECT, FOUNDERS, OPERATOR_KEY, OPERATOR_NAME, OPERATOR_ROLE, OPERATORS,
};
use super::fields::fields;
use super::fields::machine::HOSTNAME;
use super::problem::Problems;
use super::shape::child_path;
use super::tree::YamlNode;
use muster_types::{NodeName, OperatorRole, PublicKey};

/// Reports every violation. Returns typed access to the document if it has no problem at all.
pub(super) fn check<'a>(
    root: &'a YamlNode,
    problems: &mut Problems,
) -> Option<CheckedDocument<'a>> {
    missing(root, "", "", problems);
    founders(root, problems);
    operators(root, problems);
    problems.is_empty().then(|| CheckedDocument::new(root))
}

/// Reports the required fields that are missing in the document, or in an item of a list. `path` is
/// the item's own path.
fn missing(scope: &YamlNode, list_path: &str, path: &str, problems: &mut Problems) {
    for entry in fields().filter(|entry| entry.list_path() == list_path) {
        let here = || child_path(path, entry.local_path());
        if let Some(message) = missing_message(scope, entry) {
            problems.add(scope.line_of(entry.local_path()), &here(), message);
        }
        let Some(list) = scope.at(entry.local_path()) else { continue };
        let list_path = format!("{}[]", entry.path());
        for (index, item) in list.items().iter().enumerate().filter(|(_, item)| item.is_map()) {
            missing(item, &list_path, &format!("{}[{index}]", here()), problems);
        }
    }
}

/// The message if the field is required and missing. None if a parent is no mapping: the check has
/// reported that.
fn missing_message(scope: &YamlNode, entry: &Entry) -> Option<&'static str> {
    let path = entry.local_path();
    let is_empty = match scope.at(path) {
        None => scope.can_contain(path),
        Some(node) => {
            matches!(entry.content(), Content::MappingList { .. })
                && node.is_list()
                && node.items().is_empty()
        }
    };
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    match entry.presence() {
        Presence::Required(message) if is_empty => Some(message),
        Presence::RequiredInSection if is_empty && scope.at(section).is_some() => {
            Some("is missing")
        }
        Presence::Required(_)
        | Presence::RequiredInSection
        | Presence::Default(_)
        | Presence::Optional(_) => None,
    }
}

fn founders(root: &YamlNode, problems: &mut Problems) {
    let founders = FOUNDERS.find_with_lines(root);
    if let (Some(expect), Some((_, line))) = (EXPECT.find(root), founders.first())
        && founders.len() != usize::from(expect)
    {
        let message = format!(
            "names {} nodes, but cluster.expect is {expect}: name exactly {expect}, or none",
            founders.len()
        );
        problems.add(*line, FOUNDERS.path(), message);
    }
}

fn operators(root: &YamlNode, problems: &mut Problems) {
    let path = OPERATORS.path();
    let items = root.at(path).map_or(&[][..], YamlNode::items);
    let mut found: Vec<(String, PublicKey, OperatorRole)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let fields = (OPERATOR_NAME.find(item), OPERATOR_KEY.find(item), OPERATOR_ROLE.find(item));
        let (Some(name), Some(key), Some(role)) = fields else { continue };
        let here = format!("{path}[{index}]");
        if found.iter().any(|(earlier, ..)| *earlier == name) {
            problems.add(item.line, &here, format!("lists {name} twice"));
        }
        if let Some((earlier, ..)) = found.iter().find(|(_, earlier, _)| *earlier == key) {
            problems.add(item.line, &here, format!("has the same key as {earlier}"));
        }
        found.push((name, key, role));
    }
    let is_complete = !items.is_empty() && found.len() == items.len();
    if is_complete && found.iter().all(|(_, _, role)| *role != OperatorRole::Admin) {
        let message = "has no admin: no operator could change the cluster";
        problems.add(root.line_of(path), path, message);
    }
}

/// Reports a document that is meant for a node of another name.
pub(super) fn hostname(root: &YamlNode, name: &NodeName, problems: &mut Problems) {
    if let Some(host) = HOSTNAME.find(root).flatten().filter(|host| host != name) {
        let message = format!("is {host}, but this node is called {name}");
        problems.add(root.line_of(HOSTNAME.path()), HOSTNAME.path(), message);
    }
}
