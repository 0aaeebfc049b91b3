//! Commands against nodes: connections, requests, and files left on disk.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::io::Read as _;
use std::net::TcpListener;
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
    assert!(error.contains("is not from a control-plane node of this"), "{error}");
    assert!(error.contains("`musterctl members` without -e, which lists"), "{error}");
    assert!(!error.contains("musterd is not running"), "{error}");
    assert!(other.heard.lock().unwrap().calls.is_empty());
}

/// Regression: for a machine that was not a member yet, the error was "no answer" or a TLS failure.
#[test]
fn a_machine_that_is_no_member_yet_is_told_from_a_silent_one() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    assert_eq!(desk.ask(&[node.address], &["members"]).code, 0);

    // musterd does this before it belongs to a cluster, when it has no certificate. A worker that
    // reaches no control-plane node does it too, after reading from the client.
    for heard in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closing = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if heard {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            }
        });
        let said = desk.ask(&[address], &["status"]);
        closing.join().unwrap();
        let error = said.failure(4);
        assert!(error.contains("accepts the connection but shows no certificate"), "{error}");
        assert!(error.contains("possible causes: not a member yet"), "{error}");
        assert!(error.contains("a worker without a control-plane node"), "{error}");
        assert!(error.contains("`musterctl status --context ./DIR -e ADDRESS`"), "{error}");
    }

    let said = desk.ask(&[nobody()], &["status"]);
    assert!(said.failure(4).contains("musterd is not running there"), "{said:?}");

    // Like a frozen member, whose kernel still accepts connections.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = desk.ask(&[frozen.local_addr().unwrap()], &["status"]);
    let error = said.failure(4);
    assert!(error.contains("accepts the connection but gives no answer in time"), "{error}");
    assert!(error.contains("musterd is not running there"), "{error}");
    assert!(!error.contains("not a member yet"), "{error}");
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
    assert!(said.failure(4).contains("it may have been done"), "{said:?}");
    cluster.script(|script| (script.silent, script.done_unsaid) = (None, true));
    let said = desk.ask(&both, &["etcd", "defrag"]);
    assert!(said.failure(4).contains("it may have been done"), "{said:?}");
    let calls = cluster.heard.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "etcd_defrag").count(), 2);
}

#[test]
fn a_defragmentation_goes_to_the_next_node_while_it_was_not_sent_and_says_so() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[nobody(), node.address], &["etcd", "defrag", "-o", "json"]);
    assert_eq!(said.json()["node"], "cp-1");
    let said = desk.ask(&[nobody()], &["etcd", "defrag"]);
    let error = said.failure(4);
    assert!(error.contains("could not defragment etcd's database, and nothing was done: no node"));

    // The node answers "not now" for an etcd that refuses connections: it may have begun.
    cluster.script(|script| script.etcd_silent = Some("Connection refused".to_owned()));
    let said = desk.ask(&[node.address], &["etcd", "defrag"]);
    let error = said.failure(3);
    assert!(error.contains("the etcd of cp-1 does not answer (Connection refused)"), "{error}");
    assert!(error.contains("nothing was done"), "{error}");
    let calls = cluster.heard.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "etcd_defrag").count(), 1);
}

#[test]
fn a_defragmentation_names_the_node_to_the_server_and_to_the_operator() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["etcd", "defrag"]);
    assert_eq!(said.out, "Defragmented the etcd of cp-1: 2.0 KiB before, 1.0 KiB after.\n");
    assert_eq!(cluster.heard.lock().unwrap().node.as_deref(), Some("cp-1"));

    let id = "b".repeat(52);
    let said = desk.ask(&[node.address], &["etcd", "defrag", "-n", &id, "-o", "yaml"]);
    assert_eq!(said.out, "node: worker-1\nsizeBefore: 2048\nsizeAfter: 1024\n");
    assert_eq!(cluster.heard.lock().unwrap().node.as_deref(), Some("worker-1"));
    let said = desk.ask(&[node.address], &["etcd", "defrag", "-n", "cp-9"]);
    assert!(said.failure(1).contains("no member has the name or node id cp-9"), "{said:?}");
}

/// Regression: when the reply to a removal by name was lost, the retry failed with "no member has
/// the name".
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
    assert!(said.failure(3).contains("not healthy: etcd: worker-1: no answer for"), "{said:?}");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&answer["healthy"], &answer["checks"][1]["passed"]),
        (&false.into(), &false.into())
    );
    let said = desk.ask(&[node.address], &["health", "--wait", "--timeout", "1s"]);
    assert!(said.failure(3).contains("health: not healthy: etcd"), "{said:?}");
}

/// Regression: it was printed at every check, because the seconds in its text changed.
#[test]
fn ill_health_is_told_once_while_only_its_words_move() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.unhealthy = true);
    let said = desk.ask(&[node.address], &["health", "--wait", "--timeout", "3s"]);
    let looks = |calls: &[String]| calls.iter().filter(|call| *call == "health").count();
    assert!(looks(&cluster.heard.lock().unwrap().calls) > 1, "it was checked only once");
    let told = said.failure(3).lines().filter(|line| line.starts_with("health: ")).count();
    assert_eq!(told, 1, "{said:?}");
}

/// Regression: without member names it was printed again, and waiting for them passed the deadline.
#[test]
fn members_that_are_not_told_again_make_ill_health_neither_new_nor_later() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    assert_eq!(desk.ask(&[node.address], &["members"]).code, 0);
    cluster.script(|script| (script.unhealthy, script.members_left) = (true, Some(4)));
    let begun = Instant::now();
    let said = desk.ask(&[node.address], &["health", "--wait", "--timeout", "4s"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_millis(5500), "{took:?}");
    let told = said.failure(3).lines().filter(|line| line.starts_with("health: ")).count();
    assert_eq!(told, 1, "{said:?}");
    assert_eq!(cluster.script.lock().unwrap().members_left, Some(usize::MAX), "it was not asked");
}

#[test]
fn the_node_that_a_command_is_about_is_named_to_the_server() {
    let desk = Desk::new();
    let cluster = desk.init();
    let node = Node::start(&cluster);
    let said = desk.ask(&[node.address], &["etcd", "forfeit-leadership", "-n", "cp-2"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(cluster.heard.lock().unwrap().node.as_deref(), Some("cp-2"));
    let status = desk.ask(&[node.address], &["status", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(status["nodes"][0]["name"], "cp-2");
    let version = desk.ask(&[node.address], &["version", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(version["server"]["node"], "cp-2");
    for about_all in [&["members"][..], &["node", "remove", "cp-1"], &["token", "list"]] {
        let said = desk.ask(&[node.address], &[about_all, &["-n", "cp-2"]].concat());
        assert!(said.failure(2).contains("--node does not apply to this command"), "{said:?}");
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
    assert!(said.failure(1).contains("already exists"), "{said:?}");

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
    assert!(said.failure(1).contains("already exists"), "{said:?}");
    assert_eq!(std::fs::read(dir.join("client.key")).unwrap(), before);
}
