//! Tests of whole documents: texts in, configs or messages out.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use muster_types::{NodeName, OperatorRole, PublicKey, Role};

pub(super) const SECRET: &str = "abcdef.0123456789abcdefghijklmnop";

fn check_token(text: &str) -> Result<(), String> {
    if text.starts_with("abcdef.") { Ok(()) } else { Err("is not a token".to_owned()) }
}

pub(super) fn parse(text: &str) -> Result<Document, ConfigError> {
    Document::parse(text, &check_token)
}

fn problems_in(text: &str) -> String {
    parse(text).map_or_else(|error| error.in_file("node.yaml"), |_| "nothing".to_owned())
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(super) fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

pub(super) fn template() -> Template {
    Template {
        cluster_name: "demo".to_owned(),
        expect: 3,
        token: SecretText::new(SECRET.to_owned()),
        operators: vec![Operator {
            name: "alice".to_owned(),
            key: key(1),
            role: OperatorRole::Admin,
        }],
        mdns: true,
        static_peers: Vec::new(),
        etcd_binary: None,
    }
}

/// A valid document with one text replaced.
pub(super) fn template_with(from: &str, to: &str) -> String {
    let text = template().render();
    assert!(text.contains(from), "{from:?} is not in the template");
    text.replacen(from, to, 1)
}

#[test]
fn the_template_is_what_a_newcomer_gets() {
    insta::assert_snapshot!(template().render().as_str());
}

#[test]
fn the_template_gives_every_node_its_config() {
    let document = parse(&template().render()).unwrap();
    let config = document.effective(&name("cp-1")).unwrap();
    assert_eq!(config.role, Role::ControlPlane);
    assert_eq!(config.token.expose(), SECRET);
    assert_eq!(config.cluster.expect, 3);
    assert_eq!(config.cluster.operators, template().operators);
    assert_eq!(config.network.port, muster_types::DEFAULT_PORT);
    assert_eq!(config.state_dir.to_str(), Some(DEFAULT_STATE_DIR));
    assert!(config.discovery.mdns);
    assert_eq!(document.effective(&name("worker-7")).unwrap().role, Role::Worker);
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    insta::assert_snapshot!(problems_in(&format!(
        "
machine:
  type: controlplane
  token: wrong
  kubelet: {{}}
  network:
    port: 70000
    subnets: [10.0.0.1/24, 10.0.0.0/33, ten]
    adresses: [10.0.0.1]
  discovery:
    mdns: yes
    static: [ok.example.com, \"host:0\", \"[::1]:50000\", 1.2.3]
    dns: {{servers: [8.8.8.8, \"x\"]}}
  etcd: {{binary: bin/etcd}}
  stateDir: 7
cluster:
  clusterName: Demo
  clusterName: demo
  expct: 3
  token: \"{SECRET}\"
  founders: a
  operators:
    - name: alice
      publicKey: ed25519:short
      role: root
    - {{name: bob}}
patches:
  - match: {{name: worker-*, label: x}}
    patch: {{machine: {{type: wrker, network: {{hostname: x}}}}, cluster: {{expect: 5}}}}
  - patch: {{}}
  - match: {{role: worker}}
    patch: {{machine: {{type: control-plane}}}}
extra: 1
"
    )));
}

#[test]
fn what_only_the_whole_can_know_is_told_too() {
    insta::assert_snapshot!(problems_in(&format!(
        "
machine:
  type: control-plane
  token: {SECRET}
  network: {{port: 2379}}
cluster:
  clusterName: demo
  expect: 3
  founders: [a, worker-1, a, b]
  operators:
    - {{name: x, publicKey: \"{one}\", role: reader}}
    - {{name: x, publicKey: \"{one}\", role: backup}}
",
        one = key(1)
    )));
}

#[test]
fn even_and_too_many_founders_are_refused_with_the_reason() {
    let even = problems_in(&template_with("expect: 3", "expect: 4"));
    assert!(even.contains("survives no more failures than 3; use 1, 3, 5 or 7"), "{even}");
    let nine = problems_in(&template_with("expect: 3", "expect: 9"));
    assert!(nine.contains("must be a whole number from 1 to 7, not 9"), "{nine}");
    let text = problems_in(&template_with("expect: 3", "expect: three"));
    assert!(text.contains("must be a whole number from 1 to 7, not the text"), "{text}");
}

#[test]
fn a_founder_that_a_patch_makes_a_worker_is_refused() {
    let text = template_with("  expect: 3", "  expect: 3\n  founders: [cp-1, cp-2, worker-1]");
    assert!(problems_in(&text).contains("worker-1 is a worker"), "{}", problems_in(&text));
}

#[test]
fn the_wrong_token_is_told_without_showing_it() {
    for text in [
        template_with(SECRET, "sesame-open"),
        template_with(&format!("\"{SECRET}\""), "[sesame-open]"),
    ] {
        let report = problems_in(&text);
        assert!(report.contains("machine.token"), "{report}");
        assert!(!report.contains("sesame"), "{report}");
    }
    let document = parse(&template().render()).unwrap();
    let config = document.effective(&name("a")).unwrap();
    assert!(!format!("{document:?} {config:?}").contains("0123456789"));
    assert!(!format!("{:?}", config.birth_fields()).contains("0123456789"));
}

#[test]
fn yaml_that_could_expand_or_surprise_is_refused() {
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    assert!(problems_in(bomb).contains("is an alias"), "{}", problems_in(bomb));
    assert!(problems_in("machine: !!str x\n").contains("has a tag"));
    assert!(problems_in("machine: {}\n---\ncluster: {}\n").contains("second document"));
    assert!(problems_in(&"[".repeat(100)).contains("nested deeper"));
    assert!(problems_in("? [a]\n: b\n").contains("keys are text"));
    assert!(problems_in("machine:\n\ttype: x\n").contains("is not YAML"));
    assert!(problems_in(&" ".repeat(MAX_BYTES + 1)).contains("at most 262144"));
    assert!(problems_in("").contains("is empty"));
    assert!(problems_in("hello").contains("is not a mapping"));
}

#[test]
fn patches_apply_in_order_and_null_removes() {
    let text = template_with(
        "patches:",
        "patches:
  - match: {name: [worker-*, cp-2], role: worker}
    patch: {machine: {network: {port: 6000}}}
  - match: {name: cp-2}
    patch: {machine: {network: {port: 7000, subnets: [10.0.0.0/8]}, discovery: {mdns: false}}}
  - match: {name: \"cp-?\"}
    patch: {machine: {network: {subnets: null}}}",
    );
    let document = parse(&text).unwrap();
    let worker = document.effective(&name("worker-1")).unwrap();
    assert_eq!((worker.role, worker.network.port), (Role::Worker, 6000));
    let second = document.effective(&name("cp-2")).unwrap();
    assert_eq!((second.network.port, second.network.subnets.len()), (7000, 0));
    assert!(!second.discovery.mdns);
    assert_eq!(document.effective(&name("cp-3")).unwrap().network.port, muster_types::DEFAULT_PORT);
}

/// `name: []` selected every node: a list that a script had left empty patched the whole cluster.
#[test]
fn an_empty_list_of_names_selects_no_node_and_is_refused() {
    for selector in ["name: []", "name: []\n      role: worker"] {
        let text = problems_in(&template_with("name: worker-*", selector));
        assert!(
            text.contains("patches[0].match.name: is empty and selects no node: list names, or"),
            "{text}"
        );
    }
}

/// Rust's parsers of numbers accept `+1`, so one value had two spellings.
#[test]
fn a_number_with_a_plus_sign_is_refused() {
    for (value, problem) in [
        ("network: {port: +50000}", "must be a whole number from 1 to 65535, not +50000"),
        ("network: {subnets: [10.0.0.0/+8]}", "\"10.0.0.0/+8\" is not a subnet"),
        ("discovery: {static: [\"cp-1:+50000\"]}", "\"cp-1:+50000\" is not HOST:PORT"),
        ("discovery: {static: [\"[::1]:+50000\"]}", "\"[::1]:+50000\" is not HOST:PORT"),
        ("discovery: {dns: {servers: [\"127.0.0.1:+53\"]}}", "is not an IP address with an"),
    ] {
        let text = format!("machine:\n  {value}\n");
        assert!(problems_in(&text).contains(problem), "{}", problems_in(&text));
    }
    let expect = problems_in(&template_with("expect: 3", "expect: +3"));
    assert!(expect.contains("must be a whole number from 1 to 7, not +3"), "{expect}");
}

#[test]
fn a_patch_that_takes_away_what_a_node_needs_is_told() {
    let text = template_with("type: worker", "token: null");
    let document = parse(&text).unwrap();
    let error = document.effective(&name("worker-1")).unwrap_err().in_file("node.yaml");
    assert!(error.contains("machine.token: is missing"), "{error}");
    let named = template_with("name: worker-*", "name: w").replace("type: worker", "token: null");
    assert!(problems_in(&named).contains("machine.token: is missing"), "{}", problems_in(&named));
}

#[test]
fn a_file_for_one_node_refuses_another_name() {
    let text = template_with("  discovery:", "  network: {hostname: cp-1}\n  discovery:");
    let document = parse(&text).unwrap();
    assert_eq!(document.hostname(), Some(name("cp-1")));
    assert!(document.effective(&name("cp-1")).is_ok());
    let error = document.effective(&name("cp-2")).unwrap_err().to_string();
    assert!(error.contains("is cp-1, but this node is called cp-2"), "{error}");
}

#[test]
fn peers_and_servers_take_every_usual_form() {
    let text = template_with(
        "    mdns: true",
        "    mdns: true
    dns: {domain: Nodes.Example.com., servers: [8.8.8.8, \"[::1]:53\", \"::1\", 127.0.0.1:5353]}
    static: [10.0.0.1, \"10.0.0.2:6000\", \"::1\", \"[::2]:1\", node.example.com]",
    );
    let discovery = parse(&text).unwrap().effective(&name("a")).unwrap().discovery;
    let dns = discovery.dns.unwrap();
    assert_eq!(dns.domain, "nodes.example.com");
    let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["8.8.8.8:53", "[::1]:53", "[::1]:53", "127.0.0.1:5353"]);
    assert_eq!(
        discovery.static_peers,
        ["10.0.0.1:50000", "10.0.0.2:6000", "[::1]:50000", "[::2]:1", "node.example.com:50000"]
    );
}

#[test]
fn birth_fields_name_what_founders_must_agree_on() {
    let document = parse(&template().render()).unwrap();
    insta::assert_debug_snapshot!(document.effective(&name("a")).unwrap().birth_fields());
}

#[test]
fn birth_fields_are_those_that_the_table_marks() {
    let document = parse(&template().render()).unwrap();
    let found: BTreeSet<String> = document
        .effective(&name("a"))
        .unwrap()
        .birth_fields()
        .into_keys()
        .map(|path| path.strip_suffix(".alice").unwrap_or(&path).to_owned())
        .collect();
    let marked = fields().filter(|entry| entry.is_birth_field());
    assert_eq!(found, marked.map(|entry| entry.path().to_owned()).collect());
}

#[test]
fn every_field_is_documented() {
    let manual = include_str!("../../../docs/guide/config.md");
    for path in shape::DOCUMENT_SHAPE.paths("") {
        let is_leaf = !shape::DOCUMENT_SHAPE
            .paths("")
            .iter()
            .any(|other| other.starts_with(&format!("{path}.")));
        assert!(
            !is_leaf || manual.contains(&format!("| `{path}` |")),
            "{path} is not in the manual"
        );
    }
}

#[test]
fn every_example_is_accepted() {
    for (file, text, node, role) in [
        ("one-node", include_str!("../../../examples/one-node.yaml"), "cp-1", Role::ControlPlane),
        (
            "three-named-founders",
            include_str!("../../../examples/three-named-founders.yaml"),
            "cp-1",
            Role::ControlPlane,
        ),
        ("ipv6", include_str!("../../../examples/ipv6.yaml"), "cp-1", Role::ControlPlane),
        ("dns", include_str!("../../../examples/dns.yaml"), "worker-1", Role::Worker),
        ("worker", include_str!("../../../examples/worker.yaml"), "worker-1", Role::Worker),
    ] {
        let document = parse(text).unwrap_or_else(|error| panic!("{}", error.in_file(file)));
        assert_eq!(document.effective(&name(node)).unwrap().role, role, "{file}");
    }
}

#[test]
fn subnets_contain_their_addresses_only() {
    let subnet: Subnet = "10.1.0.0/16".parse().unwrap();
    assert!(subnet.contains("10.1.255.1".parse().unwrap()));
    assert!(!subnet.contains("10.2.0.1".parse().unwrap()));
    assert!(!subnet.contains("::1".parse().unwrap()));
    let all: Subnet = "::/0".parse().unwrap();
    assert!(all.contains("fe80::1".parse().unwrap()));
    assert!(!all.contains("1.2.3.4".parse().unwrap()));
}

#[test]
fn hostile_shapes_are_read_in_bounded_time() {
    let started = std::time::Instant::now();
    for unit in
        ["[", "{", "- ", "a: ", "? ", "\"", "'", "|\n", "a:\n ", "&a ", "*a ", "!", "#", "%"]
    {
        drop(parse(&unit.repeat(MAX_BYTES / unit.len())));
    }
    let keys: String =
        (0..20_000).flat_map(|i| ["k".to_owned(), i.to_string(), ": 1\n".to_owned()]).collect();
    drop(parse(&keys[..MAX_BYTES.min(keys.len())]));
    assert!(started.elapsed().as_secs() < 20, "took {:?}", started.elapsed());
}

/// JSON merge patch, written after the pseudocode of RFC 7396.
fn merged(target: serde_json::Value, patch: &serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Object(changes) = patch else { return patch.clone() };
    let mut map = match target {
        serde_json::Value::Object(map) => map,
        _ => serde_json::Map::new(),
    };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            let old = map.remove(key).unwrap_or_default();
            map.insert(key.clone(), merged(old, change));
        }
    }
    serde_json::Value::Object(map)
}

fn as_tree(value: &serde_json::Value) -> tree::YamlNode {
    // JSON is YAML.
    tree::load(&value.to_string(), &mut problem::Problems::default()).unwrap()
}

fn as_json(node: &tree::YamlNode) -> serde_json::Value {
    match &node.value {
        tree::Value::Null => serde_json::Value::Null,
        tree::Value::Scalar { text, .. } => text.as_str().into(),
        tree::Value::Leaf(_) => unreachable!("only the check makes one"),
        tree::Value::List(items) => items.iter().map(as_json).collect(),
        tree::Value::Map(entries) => {
            entries.iter().map(|e| (e.key.clone(), as_json(&e.node))).collect()
        }
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), "[a-c]{0,2}".prop_map(Into::into)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn merging_is_the_merge_patch_of_the_rfc(base in json(), patch in json()) {
        let mut tree = as_tree(&base);
        tree.merge(&as_tree(&patch));
        prop_assert_eq!(as_json(&tree), merged(base, &patch));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        drop(parse(&text));
    }

    #[test]
    fn a_damaged_document_never_panics_and_names_real_lines(
        at in 0usize..1500, length in 0usize..40, put in "[-:#&*!|>'\"{}\\[\\], a-z\\n]{0,12}",
    ) {
        let text = template().render();
        let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let end = (0..=(at + length).min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let damaged = format!("{}{put}{}", &text[..at], &text[end.max(at)..]);
        let lines = damaged.lines().count().max(1) + 1;
        match parse(&damaged) {
            Ok(document) => drop(document.effective(&name("worker-1"))),
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    prop_assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_matches_what_its_expansion_says(
        pattern in "[ab*?]{1,6}", text in "[ab]{1,6}",
    ) {
        fn slow(p: &[u8], t: &[u8]) -> bool {
            match (p.first(), t.first()) {
                (None, None) => true,
                (Some(b'*'), _) => slow(&p[1..], t) || (!t.is_empty() && slow(p, &t[1..])),
                (Some(b'?'), Some(_)) => slow(&p[1..], &t[1..]),
                (Some(x), Some(y)) if x == y => slow(&p[1..], &t[1..]),
                _ => false,
            }
        }
        let found = pattern::Pattern::parse(&pattern).unwrap().matches(&name(&text));
        prop_assert_eq!(found, slow(pattern.as_bytes(), text.as_bytes()));
    }
}

/// A worker called "box4" became a control-plane node, and no message named the cause.
#[test]
fn the_origin_of_a_role_is_named() {
    let document = parse(&template().render()).unwrap();
    let origin = document.role_origin(&name("box4"));
    assert_eq!(
        origin,
        "machine.type is control-plane, and no patch with machine.type matches the name box4 \
         (patched names: worker-*)"
    );
    let origin = document.role_origin(&name("worker-1"));
    assert!(
        origin.starts_with("a patch sets machine.type for the name worker-1 (line "),
        "{origin}"
    );
}

/// A member whose token had been removed from its file, or replaced, exited with code 78.
#[test]
fn a_member_reads_its_document_without_a_usable_token() {
    let token = format!("  token: \"{SECRET}\"\n");
    let tokens = ["", "  token: REDACTED\n", "  token:\n", "  token: 7\n", "  token: [a]\n"];
    for replaced in tokens.map(|other| template_with(&token, other)) {
        let patch = "patches:\n  - match: {name: \"*\"}\n    patch: {machine: {token: x}}\n";
        for text in [replaced.clone(), replaced.replace("\npatches:\n", &format!("\n{patch}"))] {
            let Err(refused) = parse(&text) else { panic!("accepted: {text}") };
            assert!(refused.concerns_only_tokens(), "{refused}");
            let document = Document::parse_without_token(&text).unwrap();
            let config = document.effective(&name("db-2")).unwrap();
            assert_eq!(config.token.expose(), "");
        }
    }
    let two = template_with(&token, "  tokn: x\n");
    assert!(!parse(&two).unwrap_err().concerns_only_tokens());
    assert!(Document::parse_without_token(&two).is_err());
    for text in ["", "machine: x", "[]", "patches: x"] {
        assert!(Document::parse_without_token(text).is_err(), "{text}");
    }
}
