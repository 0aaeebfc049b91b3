//! Command lines: what is accepted, and the message for what is not.

use muster_pki::token::Token;

use crate::support::User;

#[test]
fn wrong_usage_has_exit_code_2_and_says_what_would_be_right() {
    let user = User::new();
    for (args, words) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["init", "Demo"], "lower-case"),
        (&["init"], "<NAME>"),
        (&["members", "-o", "xml"], "[possible values: table, json, yaml]"),
        (&["token", "create"], "--role"),
        (&["token", "create", "--role", "king"], "control-plane, worker"),
        (&["token", "revoke", "a.b"], "`musterctl token list` shows them"),
    ] {
        let output = user.run(args);
        assert!(output.failure(2).contains(words), "{args:?}: {output:?}");
    }
    assert!(!user.path("config").exists(), "a refused command left something behind");
}

/// Regression: some errors were "invalid digit found in string" or "unexpected argument '-5'
/// found", and `--uses 0` meant any number.
#[test]
fn a_bad_value_is_reported_in_one_line_with_an_example() {
    let user = User::new();
    let (endpoint, duration) = ("is not ADDRESS, ADDRESS:PORT", "is not a duration: numbers with");
    let token = |option, value| vec!["token", "create", "--role", "worker", option, value];
    let create = |option, value| vec!["cluster", "create", option, value];
    for (args, words) in [
        (vec!["members", "--timeout", "soon"], duration),
        (vec!["members", "--timeout", "5"], duration),
        (vec!["members", "--timeout", "1d"], duration),
        (vec!["members", "--timeout", "-5s"], "is too short for a duration"),
        (vec!["members", "--timeout", "0s"], "is too short for a duration"),
        (vec!["members", "--timeout", "2562047788015215h"], "is too long for a duration"),
        (vec!["etcd", "client-config", "--ttl", "-1h"], "is too short for a duration"),
        (token("--ttl", "forever"), duration),
        (token("--ttl", "1us"), "is too short for a duration"),
        (vec!["members", "-e", "a b"], endpoint),
        (vec!["members", "-e", "10.0.0.1:99999"], endpoint),
        (vec!["members", "-e", "300.1.1.1"], endpoint),
        (vec!["context", "endpoints", "10.0.0.1:0"], endpoint),
        (vec!["init", "demo", "--static", "cp-1:x"], endpoint),
        (token("--uses", "0"), "whole number from 1 to 4294967295, such as 3; without --uses any"),
        (token("--uses", "-1"), "is not a whole number from 1"),
        (token("--uses", "1.5"), "is not a whole number from 1"),
        (vec!["audit", "--limit", "-1"], "is not a whole number from 0 to 4294967295"),
        (vec!["audit", "--limit", "all"], "is not a whole number from 0 to 4294967295"),
        (create("--workers", "101"), "is not a whole number from 0 to 100"),
        (create("--workers", "-1"), "is not a whole number from 0 to 100"),
        (create("--control-planes", "x"), "is not 1, 3, 5 or 7"),
        (vec!["init", "demo", "--control-planes", "4"], "is not 1, 3, 5 or 7"),
        (vec!["init", "demo", "--control-planes", "-3"], "is not 1, 3, 5 or 7"),
        (vec!["init", "Demo"], "is not a cluster name"),
        (create("--name", "A_B"), "is not a cluster name"),
        (vec!["cluster", "destroy", "A_B"], "is not a cluster name"),
        (vec!["init", "demo", "--operator", "a b"], "is not an operator's name"),
        (vec!["status", "-n", "UPPER"], "is not a node name"),
        (vec!["node", "remove", "UPPER"], "is not a node name"),
        (token("--node-name", "UPPER"), "is not a node name"),
        (token("--description", "a\tb"), "invalid description"),
    ] {
        let output = user.run(&args);
        let line = output.failure(2).lines().next().unwrap();
        let given = format!("{:?}", args.last().unwrap());
        assert!(line.contains(&given) && line.contains(words), "{args:?}: {line}");
        assert!(line.contains(", such as "), "{args:?}: {line}");
    }
    assert!(!user.path("config").exists(), "a refused command left something behind");
}

/// clap repeats a value that it rejects, and so does musterctl.
#[test]
fn a_token_where_something_else_is_wanted_does_not_show_its_secret() {
    let user = User::new();
    let token = Token::generate();
    let text = token.expose().to_string();
    let (id, secret) = text.split_once('.').unwrap();
    let (malformed, mistyped) = (format!("BADID.{secret}"), format!("{id}.{}!", &secret[..34]));
    for token in [&text, &malformed, &mistyped] {
        let token = token.as_str();
        for (args, code) in [
            (&["token", "revoke", token][..], if token == malformed { 2 } else { 78 }),
            (&["token", token], 2),
            (&["token", "create", "--role", token], 2),
            (&["token", "create", "--role", "worker", "--node-name", token], 2),
            (&["token", "create", "--role", "worker", "--uses", token], 2),
            (&["node", "remove", token], 2),
            (&["members", token], 2),
            (&["members", "--timeout", token], 2),
            (&["status", "--node", token], 2),
            (&["init", token], 2),
            (&["cluster", "destroy", token], 2),
            (&["context", "remove", token], 78),
            (&["context", "use", token], 78),
            (&["context", "add", token], 78),
            (&["members", "--context", token], 78),
        ] {
            let output = user.run(args);
            for part in [&secret[..9], &secret[20..29]] {
                let shown = output.out.contains(part) || output.err.contains(part);
                assert!(!shown, "{args:?}: {output:?}");
            }
            assert_eq!((output.code, output.out.as_str()), (code, ""), "{args:?}: {output:?}");
        }
        let output = user.run(&["node", "remove", token]);
        let start = format!("'{}.…' for '<NAME>'", token.split('.').next().unwrap());
        assert!(
            output.failure(2).contains(&start),
            "the rejected argument is not shown: {output:?}"
        );
    }
}

#[test]
fn shells_get_their_completions_and_the_version_needs_no_cluster() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = user.run(&["completion", shell]);
        assert!(output.code == 0 && output.out.contains("forfeit-leadership"), "{shell}");
    }
    let output = user.run(&["version", "-o", "yaml"]);
    assert_eq!(output.out, format!("client: \"{}\"\nserver: null\n", muster_types::VERSION));
}
