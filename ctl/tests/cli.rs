//! Commands that fail or finish before they contact a node: usage, contexts, files.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use muster_pki::token::Token;
use support::{Desk, mode, nobody};

#[test]
fn wrong_usage_has_exit_code_2_and_says_what_would_be_right() {
    let desk = Desk::new();
    for (args, words) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["init", "Demo"], "lower-case"),
        (&["init"], "<NAME>"),
        (&["members", "-o", "xml"], "[possible values: table, json, yaml]"),
        (&["token", "create"], "--role"),
        (&["token", "create", "--role", "king"], "control-plane, worker"),
        (&["token", "revoke", "a.b"], "`musterctl token list` shows them"),
    ] {
        let said = desk.run(args);
        assert!(said.failure(2).contains(words), "{args:?}: {said:?}");
    }
    assert!(!desk.path("config").exists(), "a refused command left something behind");
}

/// Regression: some errors were "invalid digit found in string" or "unexpected argument '-5'
/// found", and `--uses 0` meant any number.
#[test]
fn a_bad_value_is_told_in_one_line_with_what_would_be_right() {
    let desk = Desk::new();
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
        let said = desk.run(&args);
        let line = said.failure(2).lines().next().unwrap();
        let given = format!("{:?}", args.last().unwrap());
        assert!(line.contains(&given) && line.contains(words), "{args:?}: {line}");
        assert!(line.contains(", such as "), "{args:?}: {line}");
    }
    assert!(!desk.path("config").exists(), "a refused command left something behind");
}

/// clap repeats a value that it rejects, and so does musterctl.
#[test]
fn a_token_where_something_else_is_wanted_does_not_show_its_secret() {
    let desk = Desk::new();
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
            let said = desk.run(args);
            for part in [&secret[..9], &secret[20..29]] {
                let shown = said.out.contains(part) || said.err.contains(part);
                assert!(!shown, "{args:?}: {said:?}");
            }
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{args:?}: {said:?}");
        }
        let said = desk.run(&["node", "remove", token]);
        let start = format!("'{}.…' for '<NAME>'", token.split('.').next().unwrap());
        assert!(said.failure(2).contains(&start), "the rejected argument is not shown: {said:?}");
    }
}

#[test]
fn without_a_context_the_way_to_one_is_told() {
    let desk = Desk::new();
    let said = desk.run(&["members"]);
    assert!(said.failure(78).contains("musterctl init"), "{said:?}");
    desk.init();
    let said = desk.run(&["members"]);
    assert!(said.failure(78).contains("names no endpoint"), "{said:?}");
    let said = desk.run(&["members", "--context", "other"]);
    assert!(said.failure(78).contains("available: demo"), "{said:?}");
}

#[test]
fn init_writes_private_files_and_never_over_others() {
    let desk = Desk::new();
    let said = desk.run(&["init", "demo", "-e", "10.0.0.1", "-o", "json"]);
    assert_eq!(said.json()["context"], "demo");
    for file in ["node.yaml", "operator.key", "token", "context.yaml"] {
        assert_eq!(mode(&desk.path("demo").join(file)), 0o600, "{file}");
    }
    assert_eq!(
        (mode(&desk.path("demo")), mode(&desk.path("config/contexts/demo"))),
        (0o700, 0o700)
    );
    let said = desk.run(&["init", "demo", "--out", "again"]);
    assert!(said.failure(1).contains("context demo already exists"), "{said:?}");
    assert!(!desk.path("again").exists());
    let said = desk.run(&["init", "other", "--out", "demo"]);
    assert!(said.failure(1).contains("already exists"), "{said:?}");
    let said = desk.run(&["init", "demo", "--out", "again", "--no-context"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_context_is_taken_over_chosen_and_forgotten() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["init", "one", "--no-context"]).code, 0);
    assert_eq!(
        desk.run(&["context", "list", "-o", "json"]).json()["contexts"],
        serde_json::json!([])
    );
    assert_eq!(desk.run(&["context", "add", "one", "-e", "10.0.0.1"]).code, 0);
    assert_eq!(desk.run(&["init", "two"]).code, 0);
    assert_eq!(desk.run(&["context", "use", "one"]).code, 0);
    let list = desk.run(&["context", "list", "-o", "json"]).json();
    assert_eq!(list["contexts"][0]["endpoints"][0], "10.0.0.1");
    assert_eq!(
        (&list["contexts"][0]["current"], &list["contexts"][1]["current"]),
        (&true.into(), &false.into())
    );
    assert_eq!(desk.run(&["context", "endpoints", "10.0.0.2:7", "--context", "two"]).code, 0);
    let shown = desk.run(&["context", "show", "--context", "two", "-o", "json"]).json();
    assert_eq!(shown["endpoints"], serde_json::json!(["10.0.0.2:7"]));
    assert_eq!(desk.run(&["context", "remove", "one"]).code, 0);
    assert!(!desk.path("config/contexts/one").exists());
    assert!(desk.path("one/operator.key").exists(), "what init wrote stays");
    let by_path = desk.run(&["context", "show", "--context", "./one", "-o", "json"]).json();
    assert_eq!(by_path["clusterName"], "one");
}

/// Regression: `init` and `cluster create` switched the context silently, even when `create`
/// failed.
#[test]
fn whoever_chooses_another_context_says_so_and_how_to_go_back() {
    let desk = Desk::new();
    let said = desk.run(&["init", "one"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "there was no other");
    let said = desk.run(&["init", "two", "-o", "json"]);
    let told = "musterctl: the current context is now two (was one); `musterctl context use one` goes \
                back\n";
    assert_eq!(said.err, told);
    assert_eq!(said.json()["context"], "two");
    let said = desk.run(&["init", "three", "--no-context"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "nothing was chosen");
    let said = desk.run(&["context", "add", "three"]);
    assert!(said.err.contains("is now three (was two)"), "{said:?}");

    // Regression: nothing was printed if the current context had been deleted.
    std::fs::remove_dir_all(desk.path("config/contexts/three")).unwrap();
    assert_eq!(desk.run(&["context", "remove", "two"]).code, 0);
    assert_eq!(desk.run(&["context", "show", "-o", "json"]).json()["name"], "one");
    let said = desk.run(&["init", "three", "--out", "again"]);
    assert!(said.err.contains("is now three (was one)"), "{said:?}");
    let said = desk.run(&["context", "add", "two"]);
    assert!(said.err.contains("is now two (was three)"), "{said:?}");
    assert_eq!(desk.run(&["context", "use", "three"]).code, 0);

    let current = || std::fs::read_to_string(desk.path("config/current")).unwrap();
    let musterd = desk.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexit 78\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let said = desk.run_with(&environment, &["cluster", "create", "--dir", "c"]);
    assert!(!said.failure(3).contains("current context"), "{said:?}");
    assert_eq!(current(), "three\n");
    assert_eq!(desk.run(&["cluster", "destroy"]).code, 0);
    assert_eq!(current(), "three\n");

    // Nor may a failed `create` replace a context that is current because it is the only one.
    for name in ["three", "two"] {
        assert_eq!(desk.run(&["context", "remove", name]).code, 0);
    }
    assert_eq!(desk.run_with(&environment, &["cluster", "create", "--dir", "c"]).code, 3);
    assert_eq!(desk.run(&["context", "show", "-o", "json"]).json()["name"], "one");
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    desk.init();
    let key = desk.path("config/contexts/demo/operator.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = desk.ask(&[nobody()], &["members"]);
    assert!(said.failure(78).contains("can be read by others"), "{said:?}");
}

#[test]
fn a_damaged_context_is_told_with_its_file() {
    let desk = Desk::new();
    desk.init();
    let file = desk.path("config/contexts/demo/context.yaml");
    std::fs::write(&file, "clusterName: demo\noperator: admin\nendpoint: [x]\n").unwrap();
    let said = desk.ask(&[nobody()], &["members"]);
    assert!(said.failure(78).contains("context.yaml"), "{said:?}");
    assert!(said.err.contains("endpoint"), "{said:?}");
}

#[test]
fn shells_get_their_completions_and_the_version_needs_no_cluster() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = desk.run(&["completion", shell]);
        assert!(said.code == 0 && said.out.contains("forfeit-leadership"), "{shell}");
    }
    let said = desk.run(&["version", "-o", "yaml"]);
    assert_eq!(said.out, format!("client: \"{}\"\nserver: null\n", muster_types::VERSION));
}

#[test]
fn a_local_cluster_whose_musterd_ends_at_once_leaves_no_process_behind() {
    let desk = Desk::new();
    let musterd = desk.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\necho 'no etcd on the PATH' >&2\nexit 78\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let path = musterd.to_str().unwrap();
    let said = desk.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "c"]);
    let error = said.failure(3);
    assert!(error.contains("musterd exited: no etcd on the PATH"), "{error}");
    assert!(error.contains("musterctl cluster destroy demo"), "{error}");
    let shown = desk.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert!(desk.path("c/cp-1/musterd.log").exists());

    let said = desk.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "d"]);
    assert!(said.failure(1).contains("context demo already exists"), "{said:?}");
    assert_eq!(desk.run(&["cluster", "destroy"]).code, 0);
    assert!(!desk.path("c").exists() && !desk.path("config/contexts/demo").exists());
    let said = desk.run(&["cluster", "destroy"]);
    assert!(said.failure(1).contains("there is no local cluster demo"), "{said:?}");
}

#[test]
fn destroy_stops_what_was_started_and_nothing_else() {
    let desk = Desk::new();
    let musterd = desk.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexec sleep 300\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("300").spawn().unwrap();

    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    let said = desk.run_with(&environment, &args);
    assert!(said.failure(3).contains("not healthy in time"), "{said:?}");
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    let shown = desk.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert_eq!(desk.run(&["cluster", "destroy"]).code, 0);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn destroy_refuses_what_is_not_its_own_below_a_node_too() {
    let desk = Desk::new();
    let musterd = desk.path("musterd");
    std::fs::write(&musterd, "#!/bin/sh\nexec sleep 300\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&musterd, mode).unwrap();
    let environment = [("MUSTERD", musterd.to_str().unwrap())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    assert_eq!(desk.run_with(&environment, &args).code, 3);

    let damaged = desk.path("c/cp-1/state.damaged");
    std::fs::create_dir(&damaged).unwrap();
    let said = desk.run(&["cluster", "destroy"]);
    assert!(said.failure(1).contains("c/cp-1 holds state.damaged, which"), "{said:?}");
    std::fs::remove_dir(&damaged).unwrap();

    // Like a `musterd` that was started by hand.
    std::fs::create_dir_all(desk.path("c/cp-1/state")).unwrap();
    let lock = std::fs::File::create(desk.path("c/cp-1/state/lock")).unwrap();
    lock.lock().unwrap();
    let said = desk.run(&["cluster", "destroy"]);
    let holder = format!("c/cp-1/state is in use by process {}, which", std::process::id());
    let error = said.failure(1);
    assert!(error.contains(&holder) && error.contains("stop that musterd"), "{error}");
    assert!(desk.path("c/cluster.yaml").exists() && desk.path("c/worker-1").exists());
    drop(lock);
    assert_eq!(desk.run(&["cluster", "destroy"]).code, 0);
    assert!(!desk.path("c").exists());
}
