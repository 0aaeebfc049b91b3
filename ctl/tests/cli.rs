//! Commands that fail or finish before they contact a node: usage, contexts, files.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use muster_pki::token::Token;
use support::{User, mode, unused_address};

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
fn without_a_context_the_error_says_how_to_get_one() {
    let user = User::new();
    let output = user.run(&["members"]);
    assert!(output.failure(78).contains("musterctl init"), "{output:?}");
    user.init();
    let output = user.run(&["members"]);
    assert!(output.failure(78).contains("names no endpoint"), "{output:?}");
    let output = user.run(&["members", "--context", "other"]);
    assert!(output.failure(78).contains("available: demo"), "{output:?}");
}

#[test]
fn init_writes_private_files_and_never_over_others() {
    let user = User::new();
    let output = user.run(&["init", "demo", "-e", "10.0.0.1", "-o", "json"]);
    assert_eq!(output.json()["context"], "demo");
    for file in ["node.yaml", "operator.key", "token", "context.yaml"] {
        assert_eq!(mode(&user.path("demo").join(file)), 0o600, "{file}");
    }
    assert_eq!(
        (mode(&user.path("demo")), mode(&user.path("config/contexts/demo"))),
        (0o700, 0o700)
    );
    let output = user.run(&["init", "demo", "--out", "again"]);
    assert!(output.failure(1).contains("context demo already exists"), "{output:?}");
    assert!(!user.path("again").exists());
    let output = user.run(&["init", "other", "--out", "demo"]);
    assert!(output.failure(1).contains("already exists"), "{output:?}");
    let output = user.run(&["init", "demo", "--out", "again", "--no-context"]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn a_context_is_imported_selected_and_removed() {
    let user = User::new();
    assert_eq!(user.run(&["init", "one", "--no-context"]).code, 0);
    assert_eq!(
        user.run(&["context", "list", "-o", "json"]).json()["contexts"],
        serde_json::json!([])
    );
    assert_eq!(user.run(&["context", "add", "one", "-e", "10.0.0.1"]).code, 0);
    assert_eq!(user.run(&["init", "two"]).code, 0);
    assert_eq!(user.run(&["context", "use", "one"]).code, 0);
    let list = user.run(&["context", "list", "-o", "json"]).json();
    assert_eq!(list["contexts"][0]["endpoints"][0], "10.0.0.1");
    assert_eq!(
        (&list["contexts"][0]["current"], &list["contexts"][1]["current"]),
        (&true.into(), &false.into())
    );
    assert_eq!(user.run(&["context", "endpoints", "10.0.0.2:7", "--context", "two"]).code, 0);
    let shown = user.run(&["context", "show", "--context", "two", "-o", "json"]).json();
    assert_eq!(shown["endpoints"], serde_json::json!(["10.0.0.2:7"]));
    assert_eq!(user.run(&["context", "remove", "one"]).code, 0);
    assert!(!user.path("config/contexts/one").exists());
    assert!(user.path("one/operator.key").exists(), "what init wrote stays");
    let by_path = user.run(&["context", "show", "--context", "./one", "-o", "json"]).json();
    assert_eq!(by_path["clusterName"], "one");
}

/// Regression: `init` and `cluster create` switched the context silently, even when `create`
/// failed.
#[test]
fn a_context_switch_is_reported_with_the_way_back() {
    let user = User::new();
    let output = user.run(&["init", "one"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "there was no other");
    let output = user.run(&["init", "two", "-o", "json"]);
    let told = "musterctl: the current context is now two (was one); `musterctl context use one` goes \
                back\n";
    assert_eq!(output.err, told);
    assert_eq!(output.json()["context"], "two");
    let output = user.run(&["init", "three", "--no-context"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "nothing was chosen");
    let output = user.run(&["context", "add", "three"]);
    assert!(output.err.contains("is now three (was two)"), "{output:?}");

    // Regression: nothing was printed if the current context had been deleted.
    std::fs::remove_dir_all(user.path("config/contexts/three")).unwrap();
    assert_eq!(user.run(&["context", "remove", "two"]).code, 0);
    assert_eq!(user.run(&["context", "show", "-o", "json"]).json()["name"], "one");
    let output = user.run(&["init", "three", "--out", "again"]);
    assert!(output.err.contains("is now three (was one)"), "{output:?}");
    let output = user.run(&["context", "add", "two"]);
    assert!(output.err.contains("is now two (was three)"), "{output:?}");
    assert_eq!(user.run(&["context", "use", "three"]).code, 0);

    let current = || std::fs::read_to_string(user.path("config/current")).unwrap();
    let musterd = user.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexit 78\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let output = user.run_with(&environment, &["cluster", "create", "--dir", "c"]);
    assert!(!output.failure(3).contains("current context"), "{output:?}");
    assert_eq!(current(), "three\n");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert_eq!(current(), "three\n");

    // Nor may a failed `create` replace a context that is current because it is the only one.
    for name in ["three", "two"] {
        assert_eq!(user.run(&["context", "remove", name]).code, 0);
    }
    assert_eq!(user.run_with(&environment, &["cluster", "create", "--dir", "c"]).code, 3);
    assert_eq!(user.run(&["context", "show", "-o", "json"]).json()["name"], "one");
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let user = User::new();
    user.init();
    let key = user.path("config/contexts/demo/operator.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = user.run_at(&[unused_address()], &["members"]);
    assert!(output.failure(78).contains("can be read by others"), "{output:?}");
}

#[test]
fn a_damaged_context_is_reported_with_its_file() {
    let user = User::new();
    user.init();
    let file = user.path("config/contexts/demo/context.yaml");
    std::fs::write(&file, "clusterName: demo\noperator: admin\nendpoint: [x]\n").unwrap();
    let output = user.run_at(&[unused_address()], &["members"]);
    assert!(output.failure(78).contains("context.yaml"), "{output:?}");
    assert!(output.err.contains("endpoint"), "{output:?}");
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

#[test]
fn a_local_cluster_whose_musterd_ends_at_once_leaves_no_process_behind() {
    let user = User::new();
    let musterd = user.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\necho 'no etcd on the PATH' >&2\nexit 78\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let path = musterd.to_str().unwrap();
    let output = user.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "c"]);
    let error = output.failure(3);
    assert!(error.contains("musterd exited: no etcd on the PATH"), "{error}");
    assert!(error.contains("musterctl cluster destroy demo"), "{error}");
    let shown = user.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert!(user.path("c/cp-1/musterd.log").exists());

    let output = user.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "d"]);
    assert!(output.failure(1).contains("context demo already exists"), "{output:?}");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(!user.path("c").exists() && !user.path("config/contexts/demo").exists());
    let output = user.run(&["cluster", "destroy"]);
    assert!(output.failure(1).contains("there is no local cluster demo"), "{output:?}");
}

#[test]
fn destroy_stops_what_was_started_and_nothing_else() {
    let user = User::new();
    let musterd = user.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexec sleep 300\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("300").spawn().unwrap();

    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    let output = user.run_with(&environment, &args);
    assert!(output.failure(3).contains("not healthy in time"), "{output:?}");
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    let shown = user.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn destroy_refuses_what_is_not_its_own_below_a_node_too() {
    let user = User::new();
    let musterd = user.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexec sleep 300\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    assert_eq!(user.run_with(&environment, &args).code, 3);

    let damaged = user.path("c/cp-1/state.damaged");
    std::fs::create_dir(&damaged).unwrap();
    let output = user.run(&["cluster", "destroy"]);
    assert!(output.failure(1).contains("c/cp-1 holds state.damaged, which"), "{output:?}");
    std::fs::remove_dir(&damaged).unwrap();

    // Like a `musterd` that was started by hand.
    std::fs::create_dir_all(user.path("c/cp-1/state")).unwrap();
    let lock = std::fs::File::create(user.path("c/cp-1/state/lock")).unwrap();
    lock.lock().unwrap();
    let output = user.run(&["cluster", "destroy"]);
    let holder = format!("c/cp-1/state is in use by process {}, which", std::process::id());
    let error = output.failure(1);
    assert!(error.contains(&holder) && error.contains("stop that musterd"), "{error}");
    assert!(user.path("c/cluster.yaml").exists() && user.path("c/worker-1").exists());
    drop(lock);
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(!user.path("c").exists());
}
