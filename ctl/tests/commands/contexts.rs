//! Contexts of a user, and the files of `init`. No node is contacted.

use muster_kit::ports::unused_address;

use crate::support::{Node, User, mode};

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
    assert_eq!(user.run(&["context", "remove", "one", "--yes"]).code, 0);
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
    let output = user.run(&["init", "one", "-o", "json"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "there was no other");
    let output = user.run(&["init", "two", "-o", "json"]);
    let told = "musterctl: the current context is now two (was one); `musterctl context use one` goes \
                back\n";
    assert_eq!(output.err, told);
    assert_eq!(output.json()["context"], "two");
    let output = user.run(&["init", "three", "--no-context", "-o", "json"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "nothing was chosen");
    let output = user.run(&["context", "add", "three"]);
    assert!(output.err.contains("is now three (was two)"), "{output:?}");

    // Regression: nothing was printed if the current context had been deleted.
    std::fs::remove_dir_all(user.path("config/contexts/three")).unwrap();
    assert_eq!(user.run(&["context", "remove", "two", "--yes"]).code, 0);
    assert_eq!(user.run(&["context", "show", "-o", "json"]).json()["name"], "one");
    let output = user.run(&["init", "three", "--out", "again"]);
    assert!(output.err.contains("is now three (was one)"), "{output:?}");
    let output = user.run(&["context", "add", "two"]);
    assert!(output.err.contains("is now two (was three)"), "{output:?}");
    assert_eq!(user.run(&["context", "use", "three"]).code, 0);

    let current = || std::fs::read_to_string(user.path("config/current")).unwrap();
    let musterd = user.fake_musterd("exit 78");
    let environment = [("MUSTERD", musterd.as_str())];
    let output = user.run_with(&environment, &["cluster", "create", "--dir", "c"]);
    assert!(!output.failure(3).contains("current context"), "{output:?}");
    assert_eq!(current(), "three\n");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert_eq!(current(), "three\n");

    // Nor may a failed `create` replace a context that is current because it is the only one.
    for name in ["three", "two"] {
        assert_eq!(user.run(&["context", "remove", name, "--yes"]).code, 0);
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

/// Regression: it deleted the only copy of the key without a question.
#[test]
fn a_context_is_removed_only_with_a_confirmation() {
    let user = User::new();
    user.init();
    let output = user.run(&["context", "remove", "demo"]);
    let error = output.failure(2);
    assert!(error.contains("the context demo holds an operator key, so this needs"), "{error}");
    assert!(error.contains("try: the same with --yes"), "{error}");
    assert!(user.path("config/contexts/demo/operator.key").exists());
    assert_eq!(user.run(&["context", "remove", "demo", "--yes"]).code, 0);
    assert!(!user.path("config/contexts/demo").exists());
}

/// Regression: the next command said that the context names no endpoint.
#[test]
fn static_addresses_of_init_are_the_endpoints_of_the_context() {
    let user = User::new();
    let args = ["init", "one", "--static", "10.0.0.1", "--static", "cp-2:7", "-e", "10.0.0.9"];
    let output = user.run(&args);
    assert!(output.code == 0 && !output.err.contains("context endpoints"), "{output:?}");
    let shown = user.run(&["context", "show", "-o", "json"]).json();
    assert_eq!(shown["endpoints"], serde_json::json!(["10.0.0.9", "10.0.0.1", "cp-2:7"]));
}

/// Regression: it was "there is no context yet", with exit code 0.
#[test]
fn contexts_that_cannot_be_read_are_reported() {
    let user = User::new();
    std::fs::create_dir(user.path("config")).unwrap();
    std::fs::write(user.path("config/contexts"), "").unwrap();
    for args in [&["context", "list"][..], &["members"], &["version"], &["cluster", "list"]] {
        let output = user.run(args);
        assert_eq!(output.code, 78, "{args:?}: {output:?}");
        assert!(output.err.contains("config/contexts: Not a directory"), "{output:?}");
    }
}

/// Regression: it was the error of a temporary file.
#[test]
fn a_first_contact_that_cannot_be_recorded_says_what_to_do() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    // Not writable, for root either.
    std::fs::create_dir(user.path("config/contexts/demo/authorities.pem")).unwrap();
    let output = user.run_at(&[node.address], &["members"]);
    let error = output.failure(78);
    assert!(error.contains("cannot record the first contact in "), "{error}");
    assert!(error.contains("try: copy the directory") && !error.contains(".musterctl-"), "{error}");
}
