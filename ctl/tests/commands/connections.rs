//! Connections to nodes: first contact, trust, the next endpoint, retries.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use muster_kit::ports::unused_address;
use muster_pki::token::Token;

use crate::support::{Cluster, Node, User};

#[test]
fn the_first_contact_pins_the_cluster_and_forgets_the_token() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let token = user.path("config/contexts/demo/token");
    assert!(token.exists());

    let members = user.run_at(&[node.address], &["members", "-o", "json"]).json();
    assert_eq!(members["members"][1]["name"], "worker-1");
    assert_eq!(members["members"][0]["raft"]["voter"], true);
    assert_eq!(members["leader"], "cp-1");
    assert!(!token.exists(), "the token is still there");
    let context = user.run(&["context", "show", "-o", "json"]).json();
    assert_eq!(context["clusterId"], cluster.id.to_string());
    assert_eq!(context["learned"][0], "127.0.0.9:50000");

    user.run_at(&[node.address], &["members"]);
    let received = cluster.received.lock().unwrap();
    assert_eq!(
        (cluster.hello.anchor_calls.load(Ordering::SeqCst), received.calls.as_slice()),
        (1, &["members".to_owned(), "members".to_owned()][..])
    );
}

#[test]
fn any_node_that_answers_will_do() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user
        .run_at(&[unused_address(), node.address, unused_address()], &["version", "-o", "json"]);
    assert_eq!(output.json()["server"]["node"], "cp-1");
    let begun = Instant::now();
    let output = user.run_at(&[unused_address(), node.address], &["version", "-o", "json"]);
    assert_eq!(output.json()["server"]["node"], "cp-1");
    assert!(begun.elapsed() < Duration::from_secs(2), "a closed port was waited for");
}

#[test]
fn before_birth_every_node_says_what_it_waits_for() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let waits = "2 more control-plane nodes; cluster.expect differs on cp-3";
    cluster.script(|script| script.waiting_for = Some(waits.to_owned()));

    for command in ["members", "health"] {
        let output = user.run_at(&[node.address], &[command]);
        let error = output.failure(3);
        assert!(error.contains("no cluster yet") && error.contains(waits), "{error}");
    }
    let status = user.run_at(&[node.address], &["status", "-o", "json"]).json();
    assert_eq!(status["nodes"][0]["waitingFor"], waits);
    assert!(status["clusterId"].is_null());
    assert!(user.path("config/contexts/demo/token").exists(), "it is still needed");

    cluster.script(|script| script.waiting_for = None);
    let output = user.run_at(&[node.address], &["health", "--wait", "--timeout", "10s"]);
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn every_failed_attempt_is_reported() {
    let user = User::new();
    let cluster = user.init();
    let (one, two) = (unused_address(), unused_address());
    let output = user.run_at(&[one, two], &["members", "--timeout", "1s"]);
    let error = output.failure(4);
    assert!(error.contains(&one.to_string()) && error.contains(&two.to_string()), "{error}");

    let node = Node::start(&cluster);
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);
    drop(node);
    let output = user.run_at(&[one, two], &["members"]);
    let error = output.failure(4);
    assert!(error.contains("could not list the members: no node answered"), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_key_that_the_cluster_does_not_know_is_refused() {
    let user = User::new();
    let cluster = user.init();
    cluster.operators.lock().unwrap().clear();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["members"]);
    let error = output.failure(5);
    assert!(error.contains("does not know this operator's key"), "{error}");
}

#[test]
fn a_token_that_the_nodes_do_not_hold_is_refused() {
    let user = User::new();
    let cluster = user.init();
    cluster.hello.tokens.lock().unwrap().clear();
    cluster.hello.accept_token(&Token::generate());
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["members"]);
    let error = output.failure(5);
    assert!(error.contains("does not accept this context's token"), "{error}");
    assert!(!error.contains("on both nodes"), "an operator has no node: {error}");
}

#[test]
fn a_node_of_another_cluster_is_rejected() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);

    let operator = cluster.operators.lock().unwrap()[0];
    let other = Cluster::new(&Token::generate(), operator);
    let impostor = Node::start(&other);
    let output = user.run_at(&[impostor.address], &["members"]);
    let error = output.failure(4);
    assert!(error.contains("is not from a control-plane node of this"), "{error}");
    assert!(error.contains("`musterctl members` without -e, which lists"), "{error}");
    assert!(!error.contains("musterd is not running"), "{error}");
    assert!(other.received.lock().unwrap().calls.is_empty());
}

/// Regression: for a machine that was not a member yet, the error was "no answer" or a TLS failure.
#[test]
fn a_machine_that_is_not_a_member_is_distinguished_from_one_that_does_not_answer() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);

    // musterd does this before it belongs to a cluster, when it has no certificate. A worker that
    // reaches no control-plane node does it too, after reading from the client.
    for received in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closing = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if received {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            }
        });
        let output = user.run_at(&[address], &["status"]);
        closing.join().unwrap();
        let error = output.failure(4);
        assert!(error.contains("accepts the connection but shows no certificate"), "{error}");
        assert!(error.contains("possible causes: not a member yet"), "{error}");
        assert!(error.contains("a worker without a control-plane node"), "{error}");
        assert!(error.contains("`musterctl status --context ./DIR -e ADDRESS`"), "{error}");
    }

    let output = user.run_at(&[unused_address()], &["status"]);
    assert!(output.failure(4).contains("musterd is not running there"), "{output:?}");

    // Like a frozen member, whose kernel still accepts connections.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = user.run_at(&[frozen.local_addr().unwrap()], &["status"]);
    let error = output.failure(4);
    assert!(error.contains("accepts the connection but gives no answer in time"), "{error}");
    assert!(error.contains("musterd is not running there"), "{error}");
    assert!(!error.contains("not a member yet"), "{error}");
}

#[test]
fn an_election_is_waited_for_and_a_lost_majority_is_reported() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.unavailable_calls = 3);
    let args = ["token", "create", "--role", "worker", "-o", "json"];
    let created = user.run_at(&[node.address], &args).json();
    let token: Token = created["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.verifier().to_bytes().to_vec(), cluster.received.lock().unwrap().verifier);
    assert_eq!(created["details"]["id"], token.id().to_string());

    cluster.script(|script| script.unavailable_calls = usize::MAX);
    let limited = ["token", "create", "--role", "worker", "--timeout", "5s"];
    let output = user.run_at(&[node.address], &limited);
    let error = output.failure(3);
    assert!(error.contains("hears no majority"), "{error}");

    // The time ended during a further attempt, and "no node answered" was the result.
    cluster.script(|script| {
        script.unavailable_calls = 1;
        script.never_answered = Some("create_token".to_owned());
    });
    let output = user.run_at(&[node.address], &limited);
    let error = output.failure(3);
    assert!(error.contains("hears no majority"), "{error}");
}
