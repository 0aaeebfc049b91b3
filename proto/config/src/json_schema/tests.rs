//! The schema, judged by a JSON Schema validator of its own.

use std::path::Path;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::check::{ScalarType, scalar_type};
use super::super::problem::Problems;
use super::super::tests::{SECRET, key, parse, template, template_with};
use super::super::tree::{Value, YamlNode, load};
use super::super::{fields, kind};
use super::*;

struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    /// The compiler validates the schema against the draft's meta-schema.
    fn new(schema: Json) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource("node.json", schema).unwrap();
        let index = compiler.compile("node.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    /// The problems, or an empty text.
    fn problems(&self, document: &Json) -> String {
        let result = self.schemas.validate(document, self.index);
        result.map_or_else(|error| format!("{error:#}"), |()| String::new())
    }
}

/// The document as a YAML reader for JSON Schema sees it.
fn as_json(text: &str) -> Json {
    fn value(node: &YamlNode) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Scalar { text, quoted } => match scalar_type(text, *quoted) {
                ScalarType::Boolean => json!(text.eq_ignore_ascii_case("true")),
                ScalarType::Number => serde_json::from_str(text.trim_start_matches('+')).unwrap(),
                ScalarType::Text => json!(text.as_str()),
            },
            Value::Leaf(_) => unreachable!("only the check makes one"),
            Value::List(items) => items.iter().map(value).collect(),
            Value::Map(pairs) => {
                pairs.iter().map(|pair| (pair.key.clone(), value(&pair.node))).collect()
            }
        }
    }
    value(&load(text, &mut Problems::default()).unwrap())
}

#[test]
fn examples_and_the_template_are_valid() {
    let validator = Validator::new(json_schema());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut found = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(validator.problems(&as_json(&text)), "", "{}", path.display());
            found += 1;
        }
    }
    assert!(found >= 5, "only {found} examples");
    for text in [
        template().render().as_str(),
        // Absent fields.
        &template_with("    mdns: true", "    mdns:\n    dns:\n  network: {hostname: ~}"),
        // A patch may be incomplete, and null removes.
        &template_with("type: worker", "{token: null, discovery: {dns: {servers: [1.1.1.1]}}}"),
    ] {
        assert_eq!(validator.problems(&as_json(text)), "", "{text}");
    }
}

#[test]
fn invalid_documents_are_rejected_at_the_place_of_the_problem() {
    let validator = Validator::new(json_schema());
    for (from, to, place) in [
        ("  type: control-plane", "  type: controlplane", "/machine/type"),
        ("  type: control-plane", "  type: null", "/machine/type"),
        ("  type: control-plane\n", "", "/machine"),
        ("\ncluster:", "\nclusters:", ""),
        ("  discovery:", "  kubelet: {}\n  discovery:", "/machine"),
        ("  discovery:", "  network: {port: 70000}\n  discovery:", "/machine/network/port"),
        ("  discovery:", "  network: {port: \"1\"}\n  discovery:", "/machine/network/port"),
        ("  discovery:", "  network: {port: 2379}\n  discovery:", "/machine/network/port"),
        ("  discovery:", "  network: {subnets: [ten]}\n  discovery:", "/machine/network/subnets/0"),
        ("  discovery:", "  stateDir: var\n  discovery:", "/machine/stateDir"),
        ("mdns: true", "mdns: yes", "/machine/discovery/mdns"),
        ("mdns: true", "dns: {servers: [8.8.8.8]}", "/machine/discovery/dns"),
        ("expect: 3", "expect: 4", "/cluster/expect"),
        ("expect: 3", "expect: 9", "/cluster/expect"),
        ("expect: 3", "expect: 3\n  founders: [a, a, b]", "/cluster/founders"),
        ("expect: 3", "expect: 3\n  founders: a", "/cluster/founders"),
        ("role: admin", "role: root", "/cluster/operators/0/role"),
        ("      role: admin\n", "", "/cluster/operators/0"),
        ("publicKey: \"ed25519:", "publicKey: \"ed25519", "/cluster/operators/0/publicKey"),
        ("name: worker-*", "name: worker-*\n      label: x", "/patches/0/match"),
        ("name: worker-*", "name: Worker", "/patches/0/match/name"),
        ("        type: worker", "        type: wrker", "/patches/0/patch/machine/type"),
        (
            "        type: worker",
            "        network: {hostname: x}",
            "/patches/0/patch/machine/network",
        ),
        ("      machine:\n        type: worker", "      cluster: {expect: 5}", "/patches/0/patch"),
    ] {
        let text = template_with(from, to);
        assert!(parse(&text).is_err(), "the reader accepts {to:?}");
        let found = validator.problems(&as_json(&text));
        let at = format!("at '{place}'");
        assert!(found.contains(&at), "{to:?} has no problem {at}: {found}");
    }
    let no_operators = format!(
        "machine: {{type: worker, token: {SECRET}}}\ncluster: {{clusterName: a, expect: 1, \
         operators: []}}\n"
    );
    assert!(validator.problems(&as_json(&no_operators)).contains("at '/cluster/operators'"));
}

/// Every entry is at its place, with its description.
#[test]
fn every_field_has_a_schema() {
    let schema = json_schema();
    for entry in fields() {
        let mut place = &schema;
        for name in entry.path().split('.') {
            place = &place["properties"][name.trim_end_matches("[]")];
            if name.ends_with("[]") {
                place = &place["items"];
            }
        }
        let description = place["description"].as_str().unwrap_or_default();
        assert!(description.starts_with(entry.doc()), "{}: {place}", entry.path());
    }
}

/// The parser of a kind is never more lenient than its form.
#[test]
fn every_accepted_text_has_the_form_of_its_kind() {
    let samples: [(&dyn AnyKind, &[&str]); 13] = [
        (&kind::ROLE, &["control-plane", "worker"]),
        (&kind::OPERATOR_ROLE, &["admin", "operator", "reader", "backup"]),
        (&kind::NODE_NAME, &["a", "0", "cp-1", &"x".repeat(63)]),
        (&kind::CLUSTER_NAME, &["a", "prod-1"]),
        (&kind::OPERATOR_NAME, &["A", "alice@example.com", "a_b-c.d"]),
        (&kind::PUBLIC_KEY, &[&key(1).to_string(), &key(0xff).to_string()]),
        (&kind::NAME_PATTERN, &["*", "-", "a?b*", "cp-1"]),
        (&kind::ADDRESS, &["10.0.0.1", "::1", "FE80::1", "::ffff:1.2.3.4"]),
        (&kind::SUBNET, &["10.0.0.0/8", "::/0", "fd00::/8", "0.0.0.0/00"]),
        (&kind::DOMAIN, &["a", "A.b-c.", "_muster.example.com"]),
        (
            &kind::DNS_SERVER,
            &["1.1.1.1", "1.1.1.1:53", "::1", "[::1]", "[::1]:53", "[fe80::1%2]:53"],
        ),
        (&kind::PEER, &["1.1.1.1", "a.b:1", "a_b", "::1", "[::1]", "[::1]:1", "a."]),
        (&kind::PATH, &["/", "/a b", "/ä\n"]),
    ];
    for (kind, texts) in samples {
        let validator = Validator::new(Json::Object(scalar(kind)));
        for text in texts {
            assert!(kind.parse(text).is_ok(), "{kind:?} rejects {text:?}");
            assert_eq!(validator.problems(&json!(text)), "", "{kind:?}");
        }
    }
}

/// A default is a value like any other.
#[test]
fn every_default_is_accepted_by_its_own_kind() {
    for entry in fields() {
        if let (Presence::Default(text), Content::One(kind)) = (entry.presence(), entry.content()) {
            kind.parse(text).unwrap_or_else(|error| panic!("{}: {error}", entry.path()));
        }
    }
}

proptest! {
    /// The schema rejects nothing that the reader accepts.
    #[test]
    fn the_schema_accepts_what_the_reader_accepts(
        at in 0usize..1500, length in 0usize..6, put in "[-:#\"{}\\[\\], a-z0-9.\\n]{0,4}",
    ) {
        let text = template().render();
        let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let end = (0..=(at + length).min(text.len())).rev().find(|i| text.is_char_boundary(*i));
        let changed = format!("{}{put}{}", &text[..at], &text[end.unwrap().max(at)..]);
        if parse(&changed).is_ok() {
            let validator = Validator::new(json_schema());
            prop_assert_eq!(validator.problems(&as_json(&changed)), "", "{}", changed);
        }
    }
}
