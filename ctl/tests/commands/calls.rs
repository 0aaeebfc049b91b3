//! Calls of the commands: requests, replies, and files left on disk.

use std::time::{Duration, Instant};

use muster_kit::ports::unused_address;
use ring::digest::{SHA256, digest};

use crate::support::{Node, User, mode};

#[test]
fn a_role_that_does_not_suffice_is_refused_with_the_servers_message() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.deny = true);
    let output = user.run_at(&[node.address], &["node", "remove", "worker-1"]);
    let error = output.failure(5);
    assert!(error.contains("could not remove the node"), "{error}");
    assert!(error.contains("admin has the role reader here"), "{error}");
}

#[test]
fn a_defragmentation_without_an_answer_is_never_repeated() {
    let user = User::new();
    let cluster = user.init();
    let (one, two) = (Node::start(&cluster), Node::start(&cluster));
    assert_eq!(user.run_at(&[one.address], &["members"]).code, 0);
    let both = [one.address, two.address];
    cluster.script(|script| script.never_answered = Some("etcd_defrag".to_owned()));
    let output = user.run_at(&both, &["etcd", "defrag", "--timeout", "1s"]);
    assert!(output.failure(4).contains("it may have been done"), "{output:?}");
    cluster.script(|script| (script.never_answered, script.reply_lost) = (None, true));
    let output = user.run_at(&both, &["etcd", "defrag"]);
    assert!(output.failure(4).contains("it may have been done"), "{output:?}");
    let calls = cluster.received.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "etcd_defrag").count(), 2);
}

#[test]
fn a_defragmentation_goes_to_the_next_node_while_it_was_not_sent_and_says_so() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[unused_address(), node.address], &["etcd", "defrag", "-o", "json"]);
    assert_eq!(output.json()["node"], "cp-1");
    let output = user.run_at(&[unused_address()], &["etcd", "defrag"]);
    let error = output.failure(4);
    assert!(error.contains("could not defragment etcd's database, and nothing was done: no node"));

    // The node answers "not now" for an etcd that refuses connections: it may have begun.
    cluster.script(|script| script.etcd_unreachable = Some("Connection refused".to_owned()));
    let output = user.run_at(&[node.address], &["etcd", "defrag"]);
    let error = output.failure(3);
    assert!(error.contains("the etcd of cp-1 does not answer (Connection refused)"), "{error}");
    assert!(error.contains("nothing was done"), "{error}");
    let calls = cluster.received.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "etcd_defrag").count(), 1);
}

#[test]
fn a_defragmentation_names_the_node_to_the_server_and_to_the_operator() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["etcd", "defrag"]);
    assert_eq!(output.err, "Defragmented the etcd of cp-1: 2.0 KiB before, 1.0 KiB after.\n");
    assert_eq!(cluster.received.lock().unwrap().node.as_deref(), Some("cp-1"));

    let id = "b".repeat(52);
    let output = user.run_at(&[node.address], &["etcd", "defrag", "-n", &id, "-o", "yaml"]);
    assert_eq!(output.out, "node: worker-1\nsizeBefore: 2048\nsizeAfter: 1024\n");
    assert_eq!(cluster.received.lock().unwrap().node.as_deref(), Some("worker-1"));
    let output = user.run_at(&[node.address], &["etcd", "defrag", "-n", "cp-9"]);
    assert!(output.failure(1).contains("no member has the name or node id cp-9"), "{output:?}");
}

/// Regression: when the reply to a removal by name was lost, the retry failed with "no member has
/// the name".
#[test]
fn a_removal_whose_answer_was_lost_is_repeated_by_id() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.reply_lost = true);
    let output =
        user.run_at(&[node.address], &["node", "remove", "worker-1", "--yes", "-o", "json"]);
    assert_eq!(output.json()["removed"]["name"], "worker-1");
    let calls = cluster.received.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| *call == "remove_node").count(), 2);
}

#[test]
fn a_refused_removal_says_why_and_what_to_do() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["node", "remove", "cp-1", "--yes"]);
    assert!(output.failure(1).contains("needed for a majority; use --force"), "{output:?}");
    let output = user.run_at(&[node.address], &["node", "remove", "worker-1", "--yes"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.err.starts_with("Removed worker-1 ("), "{output:?}");
}

/// Regression: a healthy member, even the leader, was removed without a question.
#[test]
fn a_healthy_member_is_removed_only_with_a_confirmation() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let removals = || {
        let calls = cluster.received.lock().unwrap().calls.clone();
        calls.iter().filter(|call| *call == "remove_node").count()
    };
    let output = user.run_at(&[node.address], &["node", "remove", "worker-1"]);
    let error = output.failure(2);
    assert!(
        error.contains("worker-1 is a healthy member, so this needs a confirmation"),
        "{error}"
    );
    assert!(error.contains("nothing was changed\ntry: the same with --yes"), "{error}");
    assert_eq!(removals(), 0);

    cluster.script(|script| script.down = Some("worker-1".to_owned()));
    let output = user.run_at(&[node.address], &["node", "remove", "worker-1"]);
    assert_eq!((output.code, removals()), (0, 1), "a member that is down: {output:?}");
}

#[test]
fn a_dry_run_shows_what_a_removal_would_leave_and_changes_nothing() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["node", "remove", "cp-1", "--dry-run"]);
    assert_eq!(output.code, 0, "{output:?}");
    let row = output.out.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(row, "cp-1 control-plane alive 3 -> 2 1 -> 0");
    assert!(output.err.contains("if one fails. Nothing was changed."), "{output:?}");
    let args = ["node", "remove", "cp-1", "--dry-run", "-o", "json"];
    let plan = user.run_at(&[node.address], &args).json();
    assert_eq!(plan["failureTolerance"]["before"]["tolerance"], 1);
    assert_eq!(plan["failureTolerance"]["after"]["tolerance"], 0);
    let output = user.run_at(&[node.address], &["node", "remove", "cp-9", "--dry-run"]);
    assert!(output.failure(1).contains("no member has the name cp-9"), "{output:?}");
    assert!(!cluster.received.lock().unwrap().calls.contains(&"remove_node".to_owned()));
}

/// Regression: `--disarm` cleared CORRUPT too, and every alarm was shown as disarmed.
#[test]
fn corruption_stays_an_alarm_until_its_member_is_named() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["etcd", "alarms", "--disarm"]);
    let rows: Vec<_> = output.out.lines().map(|line| line.split_whitespace().last()).collect();
    assert_eq!(rows, [Some("STATE"), Some("disarmed"), Some("active")], "{output:?}");
    assert!(output.err.contains("the data of cp-2 differ"), "{output:?}");
    let args = ["etcd", "alarms", "--disarm-corrupt", "cp-2", "-o", "json"];
    let alarms = user.run_at(&[node.address], &args).json();
    assert_eq!(alarms["alarms"][0]["disarmed"], false);
    assert_eq!(alarms["alarms"][1]["disarmed"], true);
    let both = ["etcd", "alarms", "--disarm", "--disarm-corrupt", "cp-2"];
    assert!(user.run_at(&[node.address], &both).failure(2).contains("cannot be used with"));
}

#[test]
fn ill_health_has_its_own_exit_code_and_a_complete_answer() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.unhealthy = true);
    let output = user.run_at(&[node.address], &["health", "-o", "json"]);
    assert!(output.failure(3).contains("not healthy: 1 of 2 checks failed"), "{output:?}");
    let answer: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(
        (&answer["healthy"], &answer["checks"][1]["passed"]),
        (&false.into(), &false.into())
    );
    let output = user.run_at(&[node.address], &["health", "--wait", "--timeout", "1s"]);
    assert!(output.failure(3).contains("health: not healthy: etcd"), "{output:?}");
}

/// Regression: it was printed at every check, because the seconds in its text changed.
#[test]
fn ill_health_is_reported_once_while_only_its_text_changes() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    cluster.script(|script| script.unhealthy = true);
    let output = user.run_at(&[node.address], &["health", "--wait", "--timeout", "3s"]);
    let looks = |calls: &[String]| calls.iter().filter(|call| *call == "health").count();
    assert!(looks(&cluster.received.lock().unwrap().calls) > 1, "it was checked only once");
    let told = output.failure(3).lines().filter(|line| line.starts_with("health: ")).count();
    assert_eq!(told, 1, "{output:?}");
}

/// Regression: without member names it was printed again, and waiting for them passed the deadline.
#[test]
fn unanswered_members_calls_neither_repeat_ill_health_nor_pass_the_deadline() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    assert_eq!(user.run_at(&[node.address], &["members"]).code, 0);
    cluster.script(|script| (script.unhealthy, script.members_left) = (true, Some(4)));
    let begun = Instant::now();
    let output = user.run_at(&[node.address], &["health", "--wait", "--timeout", "4s"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_millis(5500), "{took:?}");
    let told = output.failure(3).lines().filter(|line| line.starts_with("health: ")).count();
    assert_eq!(told, 1, "{output:?}");
    assert_eq!(cluster.script.lock().unwrap().members_left, Some(usize::MAX), "it was not asked");
}

#[test]
fn the_node_that_a_command_is_about_is_named_to_the_server() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["etcd", "forfeit-leadership", "-n", "cp-2"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(cluster.received.lock().unwrap().node.as_deref(), Some("cp-2"));
    let status = user.run_at(&[node.address], &["status", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(status["nodes"][0]["name"], "cp-2");
    let version = user.run_at(&[node.address], &["version", "-n", "cp-2", "-o", "json"]).json();
    assert_eq!(version["server"]["node"], "cp-2");
    for about_all in [&["members"][..], &["node", "remove", "cp-1"], &["token", "list"]] {
        let output = user.run_at(&[node.address], &[about_all, &["-n", "cp-2"]].concat());
        assert!(output.failure(2).contains("--node does not apply to this command"), "{output:?}");
    }
    let output = user.run_at(&[node.address], &["pki", "show", "-n", "cp-9"]);
    assert!(output.failure(1).contains("no member has the name or node id cp-9"), "{output:?}");
}

#[test]
fn a_snapshot_is_complete_or_absent() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let data = vec![3; 100_000];
    let whole = [data.as_slice(), digest(&SHA256, &data).as_ref()].concat();
    cluster.script(|script| script.snapshot = whole.chunks(33_000).map(<[u8]>::to_vec).collect());

    let file = user.path("etcd.db");
    let output = user.run_at(&[node.address], &["etcd", "snapshot", "etcd.db", "-o", "json"]);
    assert_eq!(output.json()["bytes"], whole.len());
    assert_eq!((std::fs::read(&file).unwrap(), mode(&file)), (whole.clone(), 0o600));

    let output = user.run_at(&[node.address], &["etcd", "snapshot", "etcd.db"]);
    assert!(output.failure(1).contains("already exists"), "{output:?}");

    cluster.script(|script| script.snapshot.truncate(3));
    let output = user.run_at(&[node.address], &["etcd", "snapshot", "other.db"]);
    assert!(output.failure(1).contains("does not match the checksum"), "{output:?}");
    let left: Vec<_> =
        std::fs::read_dir(user.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("other")), "{left:?}");
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".musterctl")), "{left:?}");
}

#[test]
fn openssl_accepts_the_client_certificate_and_its_key() {
    let user = User::new();
    let cluster = user.init();
    let node = Node::start(&cluster);
    let output = user.run_at(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert_eq!(output.code, 0, "{output:?}");
    let dir = user.path("creds");
    for name in ["ca.crt", "client.crt", "client.key", "etcdctl.env"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let openssl = |args: &[&str]| {
        let output =
            std::process::Command::new("openssl").args(args).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(&["verify", "-CAfile", "ca.crt", "client.crt"]);
    assert_eq!(
        openssl(&["pkey", "-in", "client.key", "-pubout"]),
        openssl(&["x509", "-in", "client.crt", "-noout", "-pubkey"])
    );
    let environment = std::fs::read_to_string(dir.join("etcdctl.env")).unwrap();
    assert!(environment.contains("export ETCDCTL_ENDPOINTS='https://127.0.0.9:2379'"));

    let before = std::fs::read(dir.join("client.key")).unwrap();
    // The same cluster: renewed in place.
    let output = user.run_at(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert_eq!(output.code, 0, "{output:?}");
    let renewed = std::fs::read(dir.join("client.key")).unwrap();
    assert_ne!(renewed, before);
    assert_eq!(mode(&dir.join("client.key")), 0o600);
    openssl(&["verify", "-CAfile", "ca.crt", "client.crt"]);
    assert_eq!(
        openssl(&["pkey", "-in", "client.key", "-pubout"]),
        openssl(&["x509", "-in", "client.crt", "-noout", "-pubkey"])
    );

    // Another cluster, or not all of the files: nothing is touched.
    std::fs::write(dir.join("ca.crt"), "another").unwrap();
    let output = user.run_at(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert!(output.failure(1).contains("credentials of another cluster"), "{output:?}");
    std::fs::remove_file(dir.join("ca.crt")).unwrap();
    let output = user.run_at(&[node.address], &["etcd", "client-config", "--out", "creds"]);
    assert!(output.failure(1).contains("already exists"), "{output:?}");
    assert_eq!(std::fs::read(dir.join("client.key")).unwrap(), renewed);
}
