//! Attacks on a whole cluster of real nodes: what strangers, token-holders, former members and
//! members of other clusters try, and what they learn.

#![allow(clippy::print_stderr, reason = "figures that are worth reading")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::ctl::{Said, binary, said};
use muster_tests::loopback::{Bench, Running};
use muster_tests::{Cluster, Host, Lab, Plan, scenario, until};
use serde_json::{Value, json};

/// How long something that nodes try again and again may take to show.
const SOON: Duration = Duration::from_mins(1);

/// Calls of `muster-node/1`, as the attacker names them.
const NODE_CALLS: [&str; 8] =
    ["Append", "Vote", "Snapshot", "Propose", "ReadIndex", "Report", "Watch", "Operate"];

fn started(lab: &Lab, plan: &Plan) -> Result<Cluster> {
    let mut cluster = Cluster::plan(lab, plan)?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    Ok(cluster)
}

fn target(cluster: &Cluster, name: &str) -> String {
    format!("{}:{}", cluster.node(name).host.address(), muster_proto::DEFAULT_PORT)
}

/// Runs the attacker on a host to its end.
fn attack(from: &Host, words: &[&str]) -> Result<String> {
    let mut command = from.command(binary("attacker")?);
    said(command.args(words))?.success()
}

fn log_of(cluster: &Cluster, node: &str) -> Result<String> {
    Ok(std::fs::read_to_string(cluster.node(node).host.dir().join("musterd.log"))?)
}

fn until_log(cluster: &Cluster, node: &str, words: &str) -> Result<()> {
    until(&format!("{node} to say {words:?}"), SOON, || match log_of(cluster, node) {
        Ok(log) if log.contains(words) => Ok(()),
        Ok(log) => Err(log.lines().last().unwrap_or_default().to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })
}

fn until_audited(cluster: &Cluster, what: &str, words: &[&str]) -> Result<()> {
    until(&format!("the audit log to show {what}"), SOON, || {
        let entries = cluster.ctl(&["audit", "-o", "json"]).and_then(Said::json);
        let entries = entries.map_err(|error| format!("{error:#}"))?;
        let list = entries["entries"].as_array().cloned().unwrap_or_default();
        let is_it = |entry: &Value| words.iter().all(|word| entry.to_string().contains(word));
        if list.iter().any(is_it) { Ok(()) } else { Err(entries.to_string()) }
    })
}

fn is_member(cluster: &Cluster, name: &str) -> Result<bool> {
    let members = cluster.members()?;
    let list = members["members"].as_array().context("no members")?;
    Ok(list.iter().any(|member| member["name"] == name))
}

/// A variant of the cluster's file for one node.
fn variant(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let mut document = cluster.document()?;
    change(&mut document);
    let file = cluster.node(name).host.dir().join("node.yaml");
    cluster.write_config(&file, &document)?;
    Ok(file)
}

/// A real node that finds nobody but a man in the middle, and a real cluster behind him. He passes
/// every message on, both ways; still neither side believes the other, for each has bound its proof
/// to its own TLS session. Without him the same node joins at once.
#[test]
fn a_man_in_the_middle_gets_nobody_in_and_learns_no_name() {
    scenario("relay", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        let mallory = lab.host("mallory")?;
        let here = format!("{}:50000", mallory.address());
        let mut command = mallory.command(binary("attacker")?);
        command.args(["relay", &here, &target(&cluster, "cp-1")]);
        let relay = mallory.spawn(command, "relay")?;
        let passed = || std::fs::read_to_string(relay.log()).unwrap_or_default();
        until("the relay to be ready", SOON, || {
            if passed().contains("ready") { Ok(()) } else { Err(passed()) }
        })?;

        let file = variant(&cluster, "worker-1", |document| {
            document["machine"]["discovery"] = json!({"mdns": false, "static": [here]});
        })?;
        cluster.start_with("worker-1", &file, &[])?;
        until_log(&cluster, "worker-1", "refused the token")?;
        let address = mallory.address().to_string();
        let words = ["refuse-stranger", "the proof of the token is wrong", &address];
        until_audited(&cluster, "the relay's wrong proof", &words)?;
        let bytes = until("the relay to have passed messages both ways", SOON, || {
            let seen = passed();
            let counts = seen.lines().filter_map(|line| line.strip_prefix("passed "));
            let both = |line: &&str| {
                line.split(' ').all(|count| count.parse::<u64>().is_ok_and(|count| count > 100))
            };
            counts.rev().find(both).map(str::to_owned).ok_or(seen)
        })?;
        eprintln!("the relay passed {bytes} bytes (up, down) of application messages");
        ensure!(!is_member(&cluster, "worker-1")?, "a relayed node was admitted");

        cluster.kill("worker-1")?;
        cluster.start("worker-1")?;
        cluster.until_members("worker-1 without the man in the middle", |members| {
            members.to_string().contains("worker-1")
        })?;
        Ok(())
    });
}

/// Wrong, expired, revoked and used-up tokens, each in the file of a real node.
#[test]
fn a_token_that_is_not_good_opens_nothing_and_is_written_down() {
    scenario("bad-tokens", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(5))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        let create = |more: &[&str]| -> Result<String> {
            let args = [&["token", "create", "--role", "worker", "-o", "json"], more].concat();
            let made = cluster.ctl(&args)?.json()?;
            Ok(made["token"].as_str().context("no token")?.to_owned())
        };
        let once = create(&["--uses", "1"])?;
        let expired = create(&["--ttl", "1s"])?;
        let revoked = create(&[])?;
        let id = |token: &str| token.split('.').next().unwrap_or_default().to_owned();
        cluster.ctl(&["token", "revoke", &id(&revoked)])?.success()?;
        let unknown = muster_pki::token::Token::generate().expose().to_string();
        let start = |cluster: &mut Cluster, name: &str, token: &str| -> Result<()> {
            let file = variant(cluster, name, |file| file["machine"]["token"] = json!(token))?;
            cluster.start_with(name, &file, &[])
        };
        start(&mut cluster, "worker-1", &once)?;
        cluster.until_members("worker-1", |m| m.to_string().contains("worker-1"))?;
        until("the token to expire", SOON, || {
            let tokens = cluster.ctl(&["token", "list", "-o", "json"]).and_then(Said::json);
            let tokens = tokens.map_err(|error| format!("{error:#}"))?.to_string();
            if tokens.contains("\"expired\"") { Ok(()) } else { Err(tokens) }
        })?;
        let bad = [
            ("worker-2", &once, "used-up"),
            ("worker-3", &expired, "expired"),
            ("worker-4", &revoked, "revoked"),
            ("worker-5", &unknown, "unknown"),
        ];
        for (name, token, _) in bad {
            start(&mut cluster, name, token)?;
        }
        for (name, token, what) in bad {
            until_log(&cluster, name, "refused the token")?;
            let address = cluster.node(name).host.address().to_string();
            let words = ["refuse-stranger", "no token of this id is valid here", &address];
            until_audited(&cluster, what, &[&words[..], &[&id(token)]].concat())?;
            ensure!(!is_member(&cluster, name)?, "a token that is {what} admitted {name}");
            let log = log_of(&cluster, name)?;
            for secret in ["\"lab\"", "cp-1", "cp-2", "cp-3"] {
                ensure!(!log.contains(secret), "{name} has learned {secret}: {log}");
            }
        }
        let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.json()?.to_string();
        for status in ["used-up", "expired", "revoked"] {
            ensure!(tokens.contains(status), "no token is {status}: {tokens}");
        }
        Ok(())
    });
}

/// Someone has copied a node's state directory: key, certificate, addresses. While the node is a
/// member he is that node. Once it is removed he is nobody, whatever he calls.
#[test]
fn what_was_stolen_of_a_removed_member_is_worth_nothing() {
    scenario("stolen", |lab| {
        let mut cluster = started(lab, &Plan::of(3).workers(1))?;
        cluster.until_members("worker-1", |m| m.to_string().contains("worker-1"))?;
        let mallory = lab.host("mallory")?;
        let stolen = steal(&cluster, "worker-1", &mallory)?;
        cluster.kill("worker-1")?;
        let (stolen, to) = (stolen.display().to_string(), target(&cluster, "cp-1"));
        let before = attack(&mallory, &["impersonate", &stolen, &to])?;
        for call in NODE_CALLS {
            let wanted = match call {
                "Report" | "Watch" => format!("{call}: OK"),
                _ => format!("{call}: PermissionDenied"),
            };
            ensure!(before.contains(&wanted), "a worker's {call}: {before}");
        }
        cluster.ctl(&["node", "remove", "worker-1"])?.success()?;
        until("cp-1 to know of the removal", SOON, || {
            let said = attack(&mallory, &["impersonate", &stolen, &to]);
            let said = said.map_err(|error| format!("{error:#}"))?;
            if said.contains("REASON_REMOVED") { Ok(()) } else { Err(said) }
        })?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            let after = attack(&mallory, &["impersonate", &stolen, &target(&cluster, name)])?;
            nobody(&after)?;
            ensure!(after.contains("Renew: OK refused REASON_REMOVED"), "{name}: {after}");
        }
        ensure!(!cluster.members()?.to_string().contains("6.6.6"), "a report was taken");
        Ok(())
    });
}

/// A member of one cluster, with a good certificate of its own authority, at another cluster's door.
#[test]
fn a_member_of_another_cluster_is_a_stranger() {
    scenario("other-cluster", |lab| {
        let ours = started(lab, &Plan::of(1))?;
        let other = Bench::new()?;
        let node = Running::start(&other, || other.ctl(&["health"])?.success().map(drop))?;
        let mallory = lab.host("mallory")?;
        let stolen = copy_identity(&other.state(), mallory.dir())?.display().to_string();
        drop(node);
        let answers = attack(&mallory, &["impersonate", &stolen, &target(&ours, "cp-1")])?;
        nobody(&answers)?;
        ensure!(answers.contains("Renew: OK refused REASON_NOT_A_MEMBER"), "{answers}");
        Ok(())
    });
}

/// No call of members was answered.
fn nobody(answers: &str) -> Result<()> {
    for call in NODE_CALLS {
        let is_refused = answers.contains(&format!("{call}: Unauthenticated"))
            || answers.contains(&format!("{call}: Unavailable"));
        ensure!(is_refused, "{call} was not refused: {answers}");
    }
    Ok(())
}

/// A copy of what makes a node that node.
fn steal(cluster: &Cluster, name: &str, thief: &Host) -> Result<PathBuf> {
    let state = cluster.node(name).host.dir().join("state");
    until(&format!("{name} to have a certificate"), SOON, || {
        let text = std::fs::read_to_string(state.join("membership.json")).unwrap_or_default();
        if text.contains("\"chain\":[\"") { Ok(()) } else { Err(text.len()) }
    })?;
    copy_identity(&state, thief.dir())
}

fn copy_identity(state: &Path, to: &Path) -> Result<PathBuf> {
    let stolen = to.join("stolen");
    std::fs::create_dir_all(&stolen)?;
    for file in ["identity.key", "membership.json"] {
        std::fs::copy(state.join(file), stolen.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(stolen)
}
