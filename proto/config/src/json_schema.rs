//! JSON Schema of `node.yaml`, for editors and other tools.
//!
//! It accepts every document that [`Document::parse`](crate::Document::parse) accepts. It does not
//! have the rules between fields, and it checks the form of a text less strictly.

use serde_json::{Map as Object, Value, json};

use super::field::{Content, Entry, Presence};
use super::kind::{AnyKind, Form};
use super::shape::{DOCUMENT_SHAPE, Map, Shape};

/// Returns the JSON Schema (draft 2020-12) of `node.yaml`.
pub fn json_schema() -> Value {
    let mut schema = mapping(&DOCUMENT_SHAPE, Place::Document);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Muster node.yaml"));
    Value::Object(schema)
}

/// Place of a mapping: in a patch nothing is required, and null removes a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Document,
    Patch,
}

fn mapping(map: &Map, place: Place) -> Object<String, Value> {
    let mut properties = Object::new();
    let mut required = Vec::new();
    for (name, shape) in map.iter() {
        let mut schema = property(shape, place);
        if place == Place::Document && is_required(shape) {
            required.push(name);
        } else {
            allow_null(&mut schema);
        }
        properties.insert(name.to_owned(), Value::Object(schema));
    }
    let mut schema = object(json!({
        "type": "object", "properties": properties, "additionalProperties": false,
    }));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

/// Returns true if a mapping needs this key.
fn is_required(shape: &Shape) -> bool {
    let always = |entry: &Entry| matches!(entry.presence(), Presence::Required(_));
    match shape {
        Shape::Map(map) => map.iter().any(|(_, below)| match below {
            // `RequiredInSection` needs no section.
            Shape::Value(entry) => always(entry),
            _ => is_required(below),
        }),
        Shape::MappingList { entry, .. } | Shape::PatchMapping { entry, .. } => always(entry),
        Shape::Value(entry) => {
            always(entry) || matches!(entry.presence(), Presence::RequiredInSection)
        }
    }
}

fn property(shape: &Shape, place: Place) -> Object<String, Value> {
    match shape {
        Shape::Map(map) => mapping(map, place),
        Shape::PatchMapping { entry, map } => described(mapping(map, Place::Patch), entry),
        Shape::MappingList { entry, max, of } => {
            let items = Value::Object(mapping(of, place));
            let mut schema = object(json!({ "type": "array", "items": items, "maxItems": max }));
            if let Presence::Required(_) = entry.presence() {
                schema.insert("minItems".to_owned(), json!(1));
            }
            described(schema, entry)
        }
        Shape::Value(entry) => described(value(entry), entry),
    }
}

fn value(entry: &Entry) -> Object<String, Value> {
    match entry.content() {
        Content::One(kind) => scalar(kind),
        Content::Many { of, max, is_set, or_one, if_empty } => {
            let mut list = object(json!({ "type": "array", "items": scalar(of), "maxItems": max }));
            if is_set {
                list.insert("uniqueItems".to_owned(), json!(true));
            }
            if if_empty.is_some() {
                list.insert("minItems".to_owned(), json!(1));
            }
            if or_one { object(json!({ "anyOf": [scalar(of), list] })) } else { list }
        }
        Content::MappingList { .. } | Content::PatchMapping => {
            unreachable!("the shape of {} is not a value", entry.path())
        }
    }
}

fn scalar(kind: &dyn AnyKind) -> Object<String, Value> {
    object(match kind.form() {
        Form::Text { pattern } => json!({ "type": "string", "pattern": pattern }),
        Form::Secret => json!({ "type": "string" }),
        Form::Word(words) => json!({ "type": "string", "enum": words }),
        Form::Integer { min, max, except: [] } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Form::Integer { min, max, except } => json!({
            "type": "integer", "minimum": min, "maximum": max, "not": { "enum": except },
        }),
        Form::Boolean => json!({ "type": "boolean" }),
    })
}

fn described(mut schema: Object<String, Value>, entry: &Entry) -> Object<String, Value> {
    let text = [entry.doc(), entry.note()].join(" ");
    schema.insert("description".to_owned(), json!(text.trim_end()));
    if let Presence::Default(text) = entry.presence() {
        let is_text = schema.get("type") == Some(&json!("string"));
        let parsed = if is_text { None } else { serde_json::from_str(text).ok() };
        schema.insert("default".to_owned(), parsed.unwrap_or_else(|| json!(text)));
    }
    schema
}

/// Accepts null too: it means that the field is absent.
fn allow_null(schema: &mut Object<String, Value>) {
    if let Some(one) = schema.get_mut("type") {
        *one = json!([one, "null"]);
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    if let Some(forms) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.push(json!({ "type": "null" }));
    }
}

/// The keywords of a schema written with `json!`.
fn object(value: Value) -> Object<String, Value> {
    match value {
        Value::Object(keywords) => keywords,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests;
