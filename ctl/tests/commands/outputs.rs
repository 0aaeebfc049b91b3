//! Standard output, standard error and exit codes, also if the output cannot be written.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use muster_kit::ports::unused_address;
use muster_pki::token::Token;
use ring::digest::{SHA256, digest};

use crate::support::{Node, User};

/// Standard output whose reader is gone, as after `| head -n 0`.
fn closed_pipe() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// Standard output to which nothing can be written.
fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Regression: the exit code was 0, or 1 with a full disk.
#[test]
fn a_verdict_that_cannot_be_written_keeps_its_exit_code() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let address = node.address.to_string();
    let health = ["health", "-e", address.as_str()];
    assert_eq!(user.run_into(closed_pipe(), &health).failure(0), "", "healthy, and not read");
    let error = user.run_into(full_disk(), &health).failure(1).to_owned();
    assert!(error.contains("write the output: No space left"), "{error}");

    cluster.script(|script| script.unhealthy = true);
    let error = user.run_into(closed_pipe(), &health).failure(3).to_owned();
    assert!(error.contains("not healthy: 1 of 2") && !error.contains("write"), "{error}");
    let error = user.run_into(full_disk(), &health).failure(3).to_owned();
    assert!(error.contains("not healthy: 1 of 2") && error.contains("No space left"), "{error}");
    let wait = [&health[..], &["--wait", "--timeout", "1s"]].concat();
    user.run_into(closed_pipe(), &wait).failure(3);
}

/// Regression: it was 0, because the version of musterctl itself could not be written.
#[test]
fn a_version_without_an_answer_keeps_its_exit_code() {
    let user = User::new();
    user.init();
    let nowhere = unused_address().to_string();
    let version = ["version", "-e", nowhere.as_str()];
    user.run_into(closed_pipe(), &version).failure(4);
    user.run_into(full_disk(), &version).failure(4);
}

/// Regression: the exit code was 0, and the cluster had a token whose secret was lost.
#[test]
fn a_token_whose_secret_cannot_be_written_is_a_failure_that_names_it() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let address = node.address.to_string();
    for format in ["table", "json", "yaml"] {
        for stdout in [closed_pipe(), full_disk()] {
            let create =
                ["token", "create", "--role", "worker", "-e", address.as_str(), "-o", format];
            let output = user.run_into(stdout, &create);
            let error = output.failure(1);
            assert!(error.contains("its secret is lost"), "{error}");
            assert!(error.contains("try: `musterctl token revoke "), "{error}");
        }
    }
}

/// Regression: it ended with 4 if the deadline cut off a check.
#[test]
fn a_deadline_within_a_check_leaves_the_last_verdict() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);
    cluster.script(|script| (script.unhealthy, script.health_left) = (true, Some(1)));
    let wait = ["health", "--wait", "--timeout", "2s"];
    let output = user.run_at(&[node.address], &wait);
    assert!(output.failure(3).contains("musterctl: not healthy: 1 of 2"), "{output:?}");
    assert!(output.out.contains("FAILED"), "the checks are shown: {output:?}");

    // The same without a majority: a call is retried for a while, and then sent again.
    cluster.script(|script| (script.unavailable_calls, script.health_left) = (10, Some(0)));
    let output = user.run_at(&[node.address], &wait);
    assert!(output.failure(3).contains("hears no majority"), "{output:?}");

    // Without any verdict, there is none to report.
    cluster.script(|script| (script.unavailable_calls, script.health_left) = (0, Some(0)));
    let output = user.run_at(&[node.address], &wait);
    assert!(output.failure(4).contains("no node answered"), "{output:?}");
}

#[test]
fn a_verdict_is_void_once_no_node_answers() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let address = node.address.to_string();
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);
    cluster.script(|script| script.unhealthy = true);
    let args = ["health", "--wait", "--timeout", "4s", "-e", address.as_str()];
    let waiting = user.command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    drop(node);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Regression: the token was followed by two lines of prose.
#[test]
fn the_output_of_token_create_is_the_token() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["token", "create", "--role", "worker"]);
    let token: Token = output.out.strip_suffix('\n').unwrap().parse().unwrap();
    let verifier = token.verifier().to_bytes().to_vec();
    assert_eq!(verifier, cluster.received.lock().unwrap().verifier);
    assert!(output.err.starts_with("Valid until "), "{output:?}");
}

#[test]
fn sentences_go_to_standard_error_and_documents_replace_them() {
    let user = User::new();
    let output = user.run(&["context", "list"]);
    assert_eq!((output.code, output.out.as_str()), (0, ""));
    assert!(output.err.contains("There is no context yet"), "{output:?}");
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.snapshot = vec![snapshot_of(b"data")]);
    for (args, sentence) in [
        (&["init", "other"][..], "Wrote the cluster other"),
        (&["context", "use", "demo"], "The current context is demo."),
        (&["context", "add", "other", "--name", "third"], "Added the context third"),
        (&["context", "use", "demo"], "The current context is demo."),
        (&["cluster", "list"], "There is no local cluster"),
        (&["etcd", "snapshot", "a.db"], "Saved 36 B of the etcd of cp-1"),
        (&["etcd", "defrag"], "Defragmented the etcd of cp-1"),
        (&["etcd", "forfeit-leadership"], "cp-1 has given up etcd's leadership; cp-2 leads"),
        (&["etcd", "client-config"], "Wrote a client certificate"),
    ] {
        let output = user.run_at(&[node.address], args);
        assert_eq!((output.code, output.out.as_str()), (0, ""), "{args:?}: {output:?}");
        assert!(output.err.contains(sentence), "{args:?}: {output:?}");
    }
    let output = user.run(&["context", "endpoints", "10.0.0.1", "--context", "third"]);
    assert_eq!((output.out.as_str(), output.err.as_str()), ("", "Set the endpoints of third.\n"));
    let output = user.run_at(&[node.address], &["etcd", "defrag", "-o", "json"]);
    assert_eq!((output.json()["node"].as_str(), output.err.as_str()), (Some("cp-1"), ""));

    for (args, first) in [
        (&["members"][..], "NAME"),
        (&["status"], "NAME"),
        (&["health"], "CHECK"),
        (&["token", "list"], "ID"),
        (&["audit"], "TIME"),
        (&["pki", "show"], "AUTHORITY"),
        (&["etcd", "members"], "NAME"),
        (&["etcd", "status"], "NODE"),
        (&["context", "list"], ""),
        (&["version"], "musterctl"),
    ] {
        let output = user.run_at(&[node.address], args);
        assert!(output.code == 0 && output.out.starts_with(first), "{args:?}: {output:?}");
        assert!(!output.out.contains("\n\n") || args[0] == "pki", "{args:?}: {output:?}");
    }
}

fn snapshot_of(data: &[u8]) -> Vec<u8> {
    [data, digest(&SHA256, data).as_ref()].concat()
}

/// Regression: `-` became a file of that name, and the sentence about it went into the pipe.
#[test]
fn a_snapshot_goes_to_standard_output_and_fails_if_it_is_incomplete() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let address = node.address.to_string();
    let whole = snapshot_of(&vec![7; 100_000]);
    cluster.script(|script| script.snapshot = whole.chunks(33_000).map(<[u8]>::to_vec).collect());
    for format in ["table", "json"] {
        let args = ["etcd", "snapshot", "-", "-e", address.as_str(), "-o", format];
        let output = user.command(&args).output().unwrap();
        assert!(output.status.success() && output.stdout == whole, "{format}");
    }
    let args = ["etcd", "snapshot", "-", "-e", address.as_str()];
    assert!(!user.path("-").exists());
    for stdout in [closed_pipe(), full_disk()] {
        let error = user.run_into(stdout, &args).failure(1).to_owned();
        assert!(error.contains("what was written is incomplete"), "{error}");
    }
    cluster.script(|script| script.snapshot.truncate(3));
    let error = user.run_into(Stdio::null(), &args).failure(1).to_owned();
    assert!(error.contains("snapshot of cp-1 from"), "{error}");
    assert!(error.contains("what was written to standard output is incomplete"), "{error}");
}

#[test]
fn a_path_that_is_no_new_file_is_refused_with_the_reason() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    for args in [
        &["init", "other", "--out", "-"][..],
        &["etcd", "client-config", "--out", "-"],
        &["cluster", "create", "--dir", "-"],
        &["context", "add", "-"],
    ] {
        let output = user.run(args);
        assert!(output.failure(2).contains("\"-\" is not a path here"), "{args:?}: {output:?}");
    }
    let output = user.run_at(&[node.address], &["etcd", "snapshot", "/dev/null"]);
    let error = output.failure(1);
    assert!(error.contains("/dev/null is a device or a pipe"), "{error}");
    assert!(error.contains("`-` for standard output") && !error.contains("remove"), "{error}");
    let output = user.run_at(&[node.address], &["etcd", "snapshot", "absent/x"]);
    let error = output.failure(1);
    assert!(error.contains("the directory absent does not exist; nothing was written"), "{error}");
}
