//! Compares a tree with the table of fields, reports every difference, and parses the values.
//!
//! Rules that concern several fields are in `rules`.

use std::collections::BTreeSet;

use super::field::{Content, Entry, Patchable};
use super::fields::fields;
use super::kind::{AnyKind, Form};
use super::problem::Problems;
use super::shape::{DOCUMENT_SHAPE, Map, Shape, child_path};
use super::tree::{Pair, Value, YamlNode};
use super::value::{nearest, quoted};
use muster_types::number::parse_digits;

/// Checks a token's form. The error text it returns must not contain the secret.
pub(super) type CheckToken<'a> = &'a dyn Fn(&str) -> Result<(), String>;

/// Reports every field of `root` that the table does not have, and every invalid value. Replaces
/// each valid scalar by its parsed value.
pub(super) fn document(root: &mut YamlNode, check_token: CheckToken<'_>, problems: &mut Problems) {
    let mut checker = Checker { check_token, problems };
    match &mut root.value {
        Value::Map(pairs) => checker.map(pairs, &DOCUMENT_SHAPE, ""),
        Value::Null => checker.problems.add(1, "", "is empty; create one with `musterctl init`"),
        Value::Scalar { .. } | Value::Leaf(_) | Value::List(_) => {
            checker.problems.add(root.line, "", "is not a mapping with `machine` and `cluster`");
        }
    }
}

struct Checker<'a> {
    check_token: CheckToken<'a>,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn map(&mut self, pairs: &mut [Pair], map: &Map, path: &str) {
        for pair in pairs {
            let shown: String = pair.key.chars().take(64).collect();
            let here = child_path(path, &shown);
            if let Some(shape) = map.get(&pair.key) {
                self.node(&mut pair.node, shape, &here);
            } else {
                let hint = suggestion(&pair.key, map, path);
                self.problems.add(pair.line, &here, format!("unknown field{hint}"));
            }
        }
    }

    fn node(&mut self, node: &mut YamlNode, shape: &Shape, path: &str) {
        match (shape, &mut node.value) {
            // Null means an absent field; in a patch it removes the field.
            (_, Value::Null) => {}
            (Shape::Map(map) | Shape::PatchMapping { map, .. }, Value::Map(pairs)) => {
                self.map(pairs, map, path);
            }
            (Shape::MappingList { max, of, .. }, Value::List(items)) => {
                self.length(node.line, items, *max, path);
                self.items(items, path, |checker, item, path| match &mut item.value {
                    Value::Map(pairs) => checker.map(pairs, of, path),
                    _ => checker.wrong_type(item, &describe_map(of), path),
                });
            }
            (Shape::Value(entry), _) => self.value(node, entry, path),
            (Shape::Map(map) | Shape::PatchMapping { map, .. }, _) => {
                self.wrong_type(node, &describe_map(map), path);
            }
            (Shape::MappingList { .. }, _) => self.wrong_type(node, "a list", path),
        }
    }

    fn value(&mut self, node: &mut YamlNode, entry: &Entry, path: &str) {
        match (entry.content(), &mut node.value) {
            (Content::One(kind), _) => self.scalar(node, kind, path),
            (Content::Many { of, or_one: true, .. }, Value::Scalar { .. }) => {
                self.scalar(node, of, path);
            }
            (Content::Many { of, max, is_set, if_empty, .. }, Value::List(items)) => {
                self.length(node.line, items, max, path);
                if let Some(message) = if_empty.filter(|_| items.is_empty()) {
                    self.problems.add(node.line, path, message);
                }
                let mut seen = BTreeSet::new();
                self.items(items, path, |checker, item, path| {
                    let text = match &item.value {
                        Value::Scalar { text, .. } if is_set => text.to_string(),
                        _ => String::new(),
                    };
                    checker.scalar(item, of, path);
                    if is_set && matches!(item.value, Value::Leaf(_)) && seen.contains(&text) {
                        checker.problems.add(item.line, path, format!("lists {text} twice"));
                    }
                    seen.insert(text);
                });
            }
            (Content::Many { or_one, .. }, _) => {
                let wanted = if or_one { "text or a list" } else { "a list" };
                self.wrong_type(node, wanted, path);
            }
            (Content::MappingList { .. } | Content::PatchMapping, _) => {
                unreachable!("the shape of {path} is not a value")
            }
        }
    }

    fn length(&mut self, line: usize, items: &[YamlNode], max: usize, path: &str) {
        if items.len() > max {
            let message = format!("has {} items, at most {max} are allowed", items.len());
            self.problems.add(line, path, message);
        }
    }

    fn items(
        &mut self,
        items: &mut [YamlNode],
        path: &str,
        mut check: impl FnMut(&mut Self, &mut YamlNode, &str),
    ) {
        for (index, item) in items.iter_mut().enumerate() {
            let path = format!("{path}[{index}]");
            if matches!(item.value, Value::Null) {
                self.problems.add(item.line, &path, "is empty");
            } else {
                check(self, item, &path);
            }
        }
    }

    fn wrong_type(&mut self, node: &YamlNode, wanted: &str, path: &str) {
        let message = format!("must be {wanted}, not {}", describe_value(&node.value));
        self.problems.add(node.line, path, message);
    }

    /// Parses a scalar and puts the parsed value in its place.
    fn scalar(&mut self, node: &mut YamlNode, kind: &dyn AnyKind, path: &str) {
        let Value::Scalar { text, quoted } = &node.value else {
            self.wrong_type(node, &describe_form(kind.form()), path);
            return;
        };
        let secret = |text: &str| match kind.form() {
            Form::Secret => (self.check_token)(text),
            Form::Text { .. } | Form::Word(_) | Form::Integer { .. } | Form::Boolean => Ok(()),
        };
        let parsed = check_form(text, *quoted, kind.form())
            .and_then(|()| secret(text))
            .and_then(|()| kind.parse(text));
        match parsed {
            Ok(leaf) => node.value = Value::Leaf(leaf),
            Err(message) => self.problems.add(node.line, path, message),
        }
    }
}

/// Checks that YAML's type of the scalar is that of the form, and the range of a number.
fn check_form(text: &str, quote: bool, form: Form) -> Result<(), String> {
    let wrong = || format!("must be {}, not {}", describe_form(form), describe_scalar(text, quote));
    match (form, scalar_type(text, quote)) {
        (Form::Text { .. } | Form::Word(_) | Form::Secret, ScalarType::Text)
        | (Form::Boolean, ScalarType::Boolean) => Ok(()),
        (Form::Integer { min, max, .. }, ScalarType::Number) => match parse_digits::<u64>(text) {
            Some(number) if (min..=max).contains(&number) => Ok(()),
            _ => {
                Err(format!("must be a whole number from {min} to {max}, not {}", truncated(text)))
            }
        },
        (Form::Secret, _) => Err("must be text: put it in quotes".to_owned()),
        (Form::Text { .. } | Form::Word(_), _) => Err(format!("{}: put it in quotes", wrong())),
        (Form::Integer { .. } | Form::Boolean, _) => Err(wrong()),
    }
}

/// Type of a scalar by YAML's core schema, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScalarType {
    Text,
    Boolean,
    Number,
}

pub(super) fn scalar_type(text: &str, quoted: bool) -> ScalarType {
    if quoted {
        return ScalarType::Text;
    }
    if matches!(text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE") {
        return ScalarType::Boolean;
    }
    let starts = text.trim_start_matches(['-', '+', '.']);
    let number = starts.starts_with(|c: char| c.is_ascii_digit())
        && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"));
    if number { ScalarType::Number } else { ScalarType::Text }
}

fn describe_scalar(text: &str, quote: bool) -> String {
    match scalar_type(text, quote) {
        ScalarType::Text => format!("the text {}", quoted(text)),
        ScalarType::Boolean => format!("{} (true or false)", truncated(text)),
        ScalarType::Number => format!("the number {}", truncated(text)),
    }
}

fn truncated(text: &str) -> String {
    text.chars().take(40).collect()
}

fn describe_form(form: Form) -> String {
    match form {
        Form::Text { .. } | Form::Word(_) | Form::Secret => "text".to_owned(),
        Form::Integer { min, max, .. } => format!("a whole number from {min} to {max}"),
        Form::Boolean => "true or false".to_owned(),
    }
}

fn describe_map(map: &Map) -> String {
    format!("a mapping with {}", known_names(map))
}

fn known_names(map: &Map) -> String {
    map.names().collect::<Vec<_>>().join(", ")
}

fn describe_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Scalar { .. } | Value::Leaf(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

/// Suggestion for an unknown field: the reason if no patch can have it, the nearest field of the
/// same mapping, else a field of that name elsewhere, else the known fields.
fn suggestion(key: &str, map: &Map, path: &str) -> String {
    if let Some(reason) = not_patchable(key, path) {
        return format!(": {reason}");
    }
    if let Some(name) = nearest(key, map.names()) {
        return format!(", did you mean {}?", child_path(path, name));
    }
    let paths = DOCUMENT_SHAPE.paths("");
    let last = |path: &'_ str| path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(elsewhere) = paths.iter().find(|path| last(path) == key.to_ascii_lowercase()) {
        return format!(", did you mean {elsewhere}?");
    }
    format!("; known fields: {}", known_names(map))
}

/// The reason against a key inside a patch (`patches[0].patch.machine`), if the table has the field.
fn not_patchable(key: &str, path: &str) -> Option<&'static str> {
    let (list, within) = path.split_once('.')?;
    let within = within.strip_prefix("patch").filter(|_| list.starts_with("patches["))?;
    let wanted = child_path(within.trim_start_matches('.'), key);
    fields().find_map(|entry| {
        let below = entry.path().strip_prefix(&wanted)?;
        match entry.patchable() {
            Patchable::Never(reason) if below.is_empty() || below.starts_with('.') => Some(reason),
            Patchable::Never(_) | Patchable::ByName(_) | Patchable::Always => None,
        }
    })
}
