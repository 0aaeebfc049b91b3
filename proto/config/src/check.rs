//! Compares a tree with the schema and reports every difference.

use super::problem::Problems;
use super::schema::{self, DOCUMENT, Field, Shape, child_path};
use super::tree::{Entry, Node, Value};
use super::value::{nearest, quoted};

/// Checks a token's form. The error text it returns must not contain the secret.
pub(super) type CheckToken<'a> = &'a dyn Fn(&str) -> Result<(), String>;

/// Reports every field of `root` that the schema does not know, and every invalid value.
pub(super) fn document(root: &Node, check_token: CheckToken<'_>, problems: &mut Problems) {
    let mut checker = Checker { check_token, problems };
    match &root.value {
        Value::Map(entries) => checker.map(entries, DOCUMENT, ""),
        Value::Null => checker.problems.add(1, "", "is empty; create one with `musterctl init`"),
        Value::Scalar { .. } | Value::List(_) => {
            checker.problems.add(root.line, "", "is not a mapping with `machine` and `cluster`");
        }
    }
}

struct Checker<'a> {
    check_token: CheckToken<'a>,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn map(&mut self, entries: &[Entry], fields: &[Field], path: &str) {
        for entry in entries {
            let shown: String = entry.key.chars().take(64).collect();
            let here = child_path(path, &shown);
            if let Some(field) = fields.iter().find(|field| field.name == entry.key) {
                self.node(&entry.node, &field.shape, &here);
            } else {
                let hint = suggestion(&entry.key, fields, path);
                self.problems.add(entry.line, &here, format!("unknown field{hint}"));
            }
        }
    }

    fn node(&mut self, node: &Node, shape: &Shape, path: &str) {
        // Null means an absent field; in a patch it removes the field.
        if matches!(node.value, Value::Null) {
            return;
        }
        match (shape, &node.value) {
            (Shape::Map(fields), Value::Map(entries)) => self.map(entries, fields, path),
            (Shape::List { of, max } | Shape::OneOrList { of, max }, Value::List(items)) => {
                self.list(node, items, (of, *max), path);
            }
            (Shape::OneOrList { of, .. }, Value::Scalar { .. }) => self.node(node, of, path),
            (
                Shape::Text(_) | Shape::Token | Shape::Integer { .. } | Shape::Boolean,
                Value::Scalar { text, quoted },
            ) => self.scalar(node.line, (text, *quoted), shape, path),
            _ => {
                let message = format!(
                    "must be {}, not {}",
                    describe_shape(shape),
                    describe_value(&node.value)
                );
                self.problems.add(node.line, path, message);
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], (of, max): (&Shape, usize), path: &str) {
        if items.len() > max {
            let message = format!("has {} items, at most {max} are allowed", items.len());
            self.problems.add(node.line, path, message);
        }
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if matches!(item.value, Value::Null) {
                self.problems.add(item.line, &path, "is empty");
            } else {
                self.node(item, of, &path);
            }
        }
    }

    fn scalar(&mut self, line: usize, (text, quote): (&str, bool), shape: &Shape, path: &str) {
        let wrong_type =
            || format!("must be {}, not {}", describe_shape(shape), describe_scalar(text, quote));
        let result = match shape {
            Shape::Token if scalar_type(text, quote) == ScalarType::Text => {
                (self.check_token)(text)
            }
            Shape::Token => Err("must be text: put it in quotes".to_owned()),
            Shape::Text(check) if scalar_type(text, quote) == ScalarType::Text => check(text),
            Shape::Text(_) => Err(format!("{}: put it in quotes", wrong_type())),
            Shape::Boolean => match scalar_type(text, quote) {
                ScalarType::Boolean => Ok(()),
                ScalarType::Number | ScalarType::Text => Err(wrong_type()),
            },
            Shape::Integer { min, max } => match (scalar_type(text, quote), text.parse::<u64>()) {
                (ScalarType::Number, Ok(number)) if (*min..=*max).contains(&number) => Ok(()),
                (ScalarType::Number, _) => Err(format!(
                    "must be a whole number from {min} to {max}, not {}",
                    truncated(text)
                )),
                (ScalarType::Text | ScalarType::Boolean, _) => Err(wrong_type()),
            },
            Shape::Map(_) | Shape::List { .. } | Shape::OneOrList { .. } => Err(wrong_type()),
        };
        if let Err(message) = result {
            self.problems.add(line, path, message);
        }
    }
}

/// Type of a scalar by YAML's core schema, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum ScalarType {
    Text,
    Boolean,
    Number,
}

fn scalar_type(text: &str, quoted: bool) -> ScalarType {
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

fn describe_shape(shape: &Shape) -> String {
    match shape {
        Shape::Text(_) | Shape::Token => "text".to_owned(),
        Shape::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Shape::Boolean => "true or false".to_owned(),
        Shape::Map(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            format!("a mapping with {}", names.join(", "))
        }
        Shape::List { .. } => "a list".to_owned(),
        Shape::OneOrList { .. } => "text or a list".to_owned(),
    }
}

fn describe_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Scalar { .. } => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

/// Suggestion for an unknown field: the nearest field of the same mapping, else a field of that
/// name elsewhere, else the known fields.
fn suggestion(key: &str, fields: &[Field], path: &str) -> String {
    let below: Vec<&str> = path.split('.').skip(1).collect();
    if below == ["patch"] && key == "cluster" {
        return ": the cluster's settings are the same for every node and cannot be patched".into();
    }
    if below == ["patch", "machine", "network"] && key == "hostname" {
        return ": patches are selected by the host name and cannot change it".into();
    }
    if let Some(name) = nearest(key, fields.iter().map(|field| field.name)) {
        return format!(", did you mean {}?", child_path(path, name));
    }
    let paths = schema::paths();
    let last = |path: &'_ str| path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(elsewhere) = paths.iter().find(|path| last(path) == key.to_ascii_lowercase()) {
        return format!(", did you mean {elsewhere}?");
    }
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    format!("; known fields: {}", names.join(", "))
}
