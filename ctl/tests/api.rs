//! Commands against nodes: the way there, what they say on it, and what they leave on disk.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::time::{Duration, Instant};

use muster_pki::token::Token;
use ring::digest::{SHA256, digest};
use support::{Cluster, Desk, Node, mode, nobody};

#[test]
fn the_first_contact_pins_the_cluster_and_forgets_the_token() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let token = desk.path("config/contexts/demo/token");
    assert!(token.exists());

    let members = desk.ask(&[node.address], &["members", "-o", "json"]).json();
    assert_eq!(members["members"][1]["name"], "worker-1");
    assert_eq!(members["members"][0]["raft"]["voter"], true);
    assert_eq!(members["leader"], "cp-1");
    assert!(!token.exists(), "the token is still there");
    let context = desk.run(&["context", "show", "-o", "json"]).json();
    assert_eq!(context["clusterId"], cluster.id.to_string());
    assert_eq!(context["learned"][0], "127.0.0.9:50000");

    desk.ask(&[node.address], &["members"]);
    let heard = cluster.heard.lock().unwrap();
    assert_eq!(
        (heard.greetings, heard.calls.as_slice()),
        (1, &["members".to_owned(), "members".to_owned()][..])
    );
}

#[test]
fn any_node_that_answers_will_do() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[nobody(), node.address, nobody()], &["version", "-o", "json"]);
    assert_eq!(said.json()["server"]["node"], "cp-1");
    let begun = Instant::now();
    let said = desk.ask(&[nobody(), node.address], &["version", "-o", "json"]);
    assert_eq!(said.json()["server"]["node"], "cp-1");
    assert!(begun.elapsed() < Duration::from_secs(2), "a closed port was waited for");
}

#[test]
fn before_birth_every_node_says_what_it_waits_for() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let waits = "2 more control-plane nodes; cluster.expect differs on cp-3";
    cluster.script(|script| script.unborn = Some(waits.to_owned()));

    for command in ["members", "health"] {
        let said = desk.ask(&[node.address], &[command]);
        let error = said.failure(3);
        assert!(error.contains("no cluster yet") && error.contains(waits), "{error}");
    }
    let status = desk.ask(&[node.address], &["status", "-o", "json"]).json();
    assert_eq!(status["nodes"][0]["waitingFor"], waits);
    assert!(status["clusterId"].is_null());
    assert!(desk.path("config/contexts/demo/token").exists(), "it is still needed");

    cluster.script(|script| script.unborn = None);
    let said = desk.ask(&[node.address], &["health", "--wait", "--timeout", "10s"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn nobody_there_is_told_with_every_attempt() {
    let desk = Desk::new();
    let cluster = desk.init();
    let (one, two) = (nobody(), nobody());
    let said = desk.ask(&[one, two], &["members", "--timeout", "1s"]);
    let error = said.failure(4);
    assert!(error.contains(&one.to_string()) && error.contains(&two.to_string()), "{error}");

    let node = Node::start(&cluster);
    assert_eq!(desk.ask(&[node.address], &["members"]).code, 0);
    drop(node);
    let said = desk.ask(&[one, two], &["members"]);
    let error = said.failure(4);
    assert!(error.contains("could not list the members: no node answered"), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_key_that_the_cluster_does_not_know_is_refused() {
    let desk = Desk::new();
    let cluster = desk.init();
    cluster.operators.lock().unwrap().clear();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["members"]);
    let error = said.failure(5);
    assert!(error.contains("does not know this operator's key"), "{error}");
}

#[test]
fn a_token_that_the_nodes_do_not_hold_is_refused() {
    let desk = Desk::new();
    let cluster = desk.init();
    *cluster.token.lock().unwrap() = Token::generate();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["members"]);
    let error = said.failure(5);
    assert!(error.contains("refused the token"), "{error}");
}

#[test]
fn a_node_of_another_cluster_is_not_talked_to() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    assert_eq!(desk.ask(&[node.address], &["members"]).code, 0);

    let operator = cluster.operators.lock().unwrap()[0];
    let other = Cluster::new(Token::generate(), operator);
    let impostor = Node::start(&other);
    let said = desk.ask(&[impostor.address], &["members"]);
    let error = said.failure(4);
    assert!(error.contains("is not a control-plane node of the cluster"), "{error}");
    assert!(other.heard.lock().unwrap().calls.is_empty());
}

#[test]
fn a_role_that_does_not_suffice_is_refused_with_the_servers_words() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.forbid = true);
    let said = desk.ask(&[node.address], &["node", "remove", "worker-1"]);
    let error = said.failure(5);
    assert!(error.contains("could not remove the node"), "{error}");
    assert!(error.contains("admin has the role reader here"), "{error}");
}

#[test]
fn an_election_is_waited_for_and_a_lost_majority_is_told() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.not_now = 3);
    let args = ["token", "create", "--role", "worker", "-o", "json"];
    let created = desk.ask(&[node.address], &args).json();
    let token: Token = created["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.verifier().to_bytes().to_vec(), cluster.heard.lock().unwrap().verifier);
    assert_eq!(created["details"]["id"], token.id().to_string());

    cluster.script(|script| script.not_now = usize::MAX);
    let said =
        desk.ask(&[node.address], &["token", "create", "--role", "worker", "--timeout", "1s"]);
    let error = said.failure(3);
    assert!(error.contains("hears no majority"), "{error}");
}

#[test]
fn a_defragmentation_without_an_answer_is_never_repeated() {
    let desk = Desk::new();
    let cluster = desk.init();
    let (one, two) = (Node::start(&cluster), Node::start(&cluster));
    assert_eq!(desk.ask(&[one.address], &["members"]).code, 0);
    let both = [one.address, two.address];
    cluster.script(|script| script.silent = Some("etcd_defrag".to_owned()));
    let said = desk.ask(&both, &["etcd", "defrag", "--timeout", "1s"]);
    assert!(said.failure(4).contains("it may have been"), "{said:?}");
    cluster.script(|script| (script.silent, script.not_now) = (None, 1));
    let said = desk.ask(&both, &["etcd", "defrag"]);
    assert!(said.failure(4).contains("it may have been"), "{said:?}");
    let calls = cluster.heard.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "etcd_defrag").count(), 2);
}

/// A removal by name that was done without saying so ended, repeated, with "no member has the name".
#[test]
fn a_removal_whose_answer_was_lost_is_repeated_by_id() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.done_unsaid = true);
    let said = desk.ask(&[node.address], &["node", "remove", "worker-1", "-o", "json"]);
    assert_eq!(said.json()["removed"]["name"], "worker-1");
    let calls = cluster.heard.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "remove_node").count(), 2);
}

#[test]
fn a_refused_removal_says_why_and_what_to_do() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["node", "remove", "cp-1"]);
    assert!(said.failure(1).contains("needed for a majority; use --force"), "{said:?}");
    let said = desk.ask(&[node.address], &["node", "remove", "worker-1", "-o", "json"]);
    assert_eq!(said.json()["removed"]["name"], "worker-1");
}

#[test]
fn ill_health_has_its_own_exit_code_and_a_complete_answer() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.unhealthy = true);
    let said = desk.ask(&[node.address], &["health", "-o", "json"]);
    assert!(said.failure(3).contains("not healthy: etcd: 3 of 3"), "{said:?}");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&answer["healthy"], &answer["checks"][1]["passed"]),
        (&false.into(), &false.into())
    );
    let said = desk.ask(&[node.address], &["health", "--wait", "--timeout", "1s"]);
    assert!(said.failure(3).contains("health: not healthy: etcd"), "{said:?}");
}

#[test]
fn the_node_that_a_command_is_about_is_named_to_the_server() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["etcd", "defrag", "-n", "cp-2", "-o", "json"]);
    assert_eq!(said.json()["sizeAfter"], 1024);
    assert_eq!(cluster.heard.lock().unwrap().node.as_deref(), Some("cp-2"));
    let status = desk.ask(&[node.address], &["status", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(status["nodes"][0]["name"], "cp-2");
    let version = desk.ask(&[node.address], &["version", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(version["server"]["node"], "cp-2");
    for about_all in [&["members"][..], &["node", "remove", "cp-1"], &["token", "list"]] {
        let said = desk.ask(&[node.address], &[about_all, &["-n", "cp-2"]].concat());
        assert!(said.failure(2).contains("--node means nothing to this command"), "{said:?}");
    }
    let said = desk.ask(&[node.address], &["pki", "show", "-n", "cp-9"]);
    assert!(said.failure(1).contains("no member has the name or node id cp-9"), "{said:?}");
}

#[test]
fn a_snapshot_is_whole_or_not_there() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let data = vec![3; 100_000];
    let whole = [data.as_slice(), digest(&SHA256, &data).as_ref()].concat();
    cluster.script(|script| script.snapshot = whole.chunks(33_000).map(<[u8]>::to_vec).collect());

    let file = desk.path("etcd.db");
    let said = desk.ask(&[node.address], &["etcd", "snapshot", "etcd.db", "-o", "json"]);
    assert_eq!(said.json()["bytes"], whole.len());
    assert_eq!((std::fs::read(&file).unwrap(), mode(&file)), (whole.clone(), 0o600));

    let said = desk.ask(&[node.address], &["etcd", "snapshot", "etcd.db"]);
    assert!(said.failure(1).contains("is there already"), "{said:?}");

    cluster.script(|script| script.snapshot.truncate(3));
    let said = desk.ask(&[node.address], &["etcd", "snapshot", "other.db"]);
    assert!(said.failure(1).contains("does not match the checksum"), "{said:?}");
    let left: Vec<_> =
        std::fs::read_dir(desk.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("other")), "{left:?}");
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".musterctl")), "{left:?}");
}

#[test]
fn openssl_accepts_the_client_certificate_and_its_key() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert_eq!(said.code, 0, "{said:?}");
    let dir = desk.path("creds");
    for name in ["ca.crt", "client.crt", "client.key", "etcdctl.env"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let openssl = |args: &[&str]| {
        let said =
            std::process::Command::new("openssl").args(args).current_dir(&dir).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    };
    openssl(&["verify", "-CAfile", "ca.crt", "client.crt"]);
    assert_eq!(
        openssl(&["pkey", "-in", "client.key", "-pubout"]),
        openssl(&["x509", "-in", "client.crt", "-noout", "-pubkey"])
    );
    let environment = std::fs::read_to_string(dir.join("etcdctl.env")).unwrap();
    assert!(environment.contains("export ETCDCTL_ENDPOINTS='https://127.0.0.9:2379'"));

    let before = std::fs::read(dir.join("client.key")).unwrap();
    let said = desk.ask(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert!(said.failure(1).contains("is there already"), "{said:?}");
    assert_eq!(std::fs::read(dir.join("client.key")).unwrap(), before);
}
