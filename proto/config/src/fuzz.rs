//! Fuzz targets of this crate's parsers (see `muster_fuzz`).

use std::cell::RefCell;
use std::fmt::{Debug, Display};
use std::str::FromStr;

use muster_fuzz::{Verdict, refused, target};

use crate::{Config, ConfigError, Document, MAX_OPERATORS, Subnet, Template};
use muster_types::{ClusterId, NodeId, NodeName, OperatorRole, PublicKey, Role};

/// Checks that a parsed value prints exactly as it was written.
fn round_trip<T>(text: &str) -> Verdict
where
    T: FromStr<Err: Display> + Display + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string(), text, "two spellings of one value");
            Verdict::Accepted
        }
        Err(error) => refused(error),
    }
}

#[test]
fn identifiers() {
    let ids = [0, 0xa5].map(|byte| NodeId::from_bytes([byte; 32]).to_string().into_bytes());
    target("identifiers").seeds(ids).seed(PublicKey::from_bytes([7; 32]).to_string()).run(
        |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
            let verdicts = [
                round_trip::<NodeId>(text),
                round_trip::<ClusterId>(text),
                round_trip::<PublicKey>(text),
            ];
            assert_eq!(verdicts[0], verdicts[1]);
            if verdicts.contains(&Verdict::Accepted) { Verdict::Accepted } else { verdicts[0] }
        },
    );
}

#[test]
fn words() {
    let seeds = ["cp-1", "a", "control-plane", "worker", "admin", "backup"];
    target("words").seeds(seeds.map(Vec::from)).seed("10.0.0.0/24").seed("fd00::/8").run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        if let Ok(subnet) = text.parse::<Subnet>() {
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
            return Verdict::Accepted;
        }
        round_trip::<Role>(text);
        round_trip::<OperatorRole>(text);
        round_trip::<NodeName>(text)
    });
}

/// Stand-in for the token parser, which is in another crate. Records its inputs.
struct Tokens(RefCell<Vec<String>>);

impl Tokens {
    fn check(&self, text: &str) -> Result<(), String> {
        self.0.borrow_mut().push(text.to_owned());
        if text.starts_with("abcdef.") { Ok(()) } else { Err("is not a token".to_owned()) }
    }
}

const NAMES: [&str; 4] = ["cp-1", "worker-1", "a", "db-2"];

#[test]
fn config() {
    target("config").longest(8 << 10).memory(1 << 20, 512).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        let tokens = Tokens(RefCell::default());
        let parsed = Document::parse(text, &|token| tokens.check(token));
        let errors: Vec<ConfigError> = match &parsed {
            Err(error) => vec![error.clone()],
            Ok(document) => {
                let config = |name: &str| document.effective(&name.parse().expect("a node name"));
                let found: Vec<_> = NAMES.iter().map(|name| config(name)).collect();
                found.iter().flatten().for_each(check_config);
                found.into_iter().filter_map(Result::err).collect()
            }
        };
        for error in &errors {
            check_positions(error, text);
            check_redaction(error, text, &tokens.0.borrow());
        }
        match parsed {
            Ok(_) => Verdict::Accepted,
            Err(error) => refused(error.in_file("node.yaml")),
        }
    });
}

/// Checks the guarantees of every `Config`.
fn check_config(config: &Config) {
    let fields = config.birth_fields();
    assert!(fields.len() <= MAX_OPERATORS + 4, "{} birth fields", fields.len());
    for (path, value) in &fields {
        assert!(path.len() <= 128 && value.len() < 1024, "{path} has {} bytes", value.len());
        assert!(!value.contains(char::is_control), "{path} has control characters");
    }
    let cluster = &config.cluster;
    assert!([1, 3, 5, 7].contains(&cluster.expect));
    assert!([0, usize::from(cluster.expect)].contains(&cluster.founders.len()));
    assert!(cluster.operators.iter().any(|operator| operator.role == OperatorRole::Admin));
    assert!(config.state_dir.is_absolute());
    // A template can express these parts, so rendering and parsing must preserve them.
    let template = Template {
        cluster_name: cluster.name.clone(),
        expect: cluster.expect,
        token: config.token.clone(),
        operators: cluster.operators.clone(),
        mdns: config.discovery.mdns,
        static_peers: config.discovery.static_peers.clone(),
        etcd_binary: config.etcd.binary.clone(),
    };
    let text = template.render();
    let printed = Document::parse(&text, &|_| Ok(()));
    let printed = printed.unwrap_or_else(|error| panic!("{}\n{}", error.in_file("printed"), *text));
    let again =
        printed.effective(&"cp-1".parse().expect("a node name")).expect("it applies to any name");
    assert_eq!(again.cluster.operators, cluster.operators);
    assert_eq!((&again.cluster.name, again.cluster.expect), (&cluster.name, cluster.expect));
    assert_eq!(again.token, config.token);
    assert_eq!(again.etcd, config.etcd);
    assert_eq!(again.discovery.static_peers, config.discovery.static_peers);
}

/// Checks that each problem has a line of this document and a message.
fn check_positions(error: &ConfigError, text: &str) {
    assert!(!error.problems.is_empty(), "rejected without a problem");
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for problem in &error.problems {
        assert!((1..=lines + 1).contains(&problem.line), "{problem} in {lines} lines");
        assert!(!problem.message.is_empty() && problem.message.len() < 2048, "{problem}");
    }
}

/// Checks that no problem repeats a token field's value, unless that text also occurs elsewhere.
fn check_redaction(error: &ConfigError, text: &str, tokens: &[String]) {
    for token in tokens.iter().filter(|token| token.len() >= 12) {
        if text.matches(token.as_str()).count() == 1 {
            let report = error.in_file("node.yaml");
            assert!(!report.contains(token.as_str()), "{report}");
        }
    }
}
