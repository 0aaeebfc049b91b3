//! Attacks on a cluster of real nodes by strangers, token holders, former members and members of
//! other clusters, and what they learn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_messages::operator::{EtcdClientConfigReply, EtcdClientConfigRequest};
use muster_pki::CertificateDer;
use muster_pki::inspect::describe;
use muster_tests::attack::stolen_state::{copy_identity, run_attacker, steal_identity};
use muster_tests::ctl::{CommandOutput, binary, output_of};
use muster_tests::lab::inside;
use muster_tests::loopback::{LoopbackMachine, RunningNode};
use muster_tests::operator::OperatorCredentials;
use muster_tests::report::report;
use muster_tests::{Cluster, Host, Lab, Plan, scenario, until};
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::etcd_access::{etcd_get, etcd_ids, etcd_peer, until_etcd_has};

/// Timeout for something that nodes retry.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);

/// Cluster name that occurs nowhere else.
const CLUSTER: &str = "umbrella-corp";

/// Calls of `muster-node/1`, as the attacker prints them.
const NODE_CALLS: [&str; 8] = [
    "AppendEntries",
    "RequestVote",
    "InstallSnapshot",
    "Propose",
    "ReadIndex",
    "Report",
    "Watch",
    "Forward",
];

fn started(lab: &Lab, plan: &Plan) -> Result<Cluster> {
    let mut cluster = Cluster::plan(lab, plan)?;
    cluster.start_all()?;
    cluster.until_healthy()?;
    Ok(cluster)
}

fn target(cluster: &Cluster, name: &str) -> String {
    format!("{}:{}", cluster.node(name).host.address(), muster_types::DEFAULT_PORT)
}

fn log_of(cluster: &Cluster, node: &str) -> Result<String> {
    Ok(std::fs::read_to_string(cluster.node(node).host.dir().join("musterd.log"))?)
}

fn until_log(cluster: &Cluster, node: &str, words: &str) -> Result<()> {
    until(&format!("{node} to log {words:?}"), TIMEOUT, || match log_of(cluster, node) {
        Ok(log) if log.contains(words) => Ok(()),
        Ok(log) => Err(log.lines().last().unwrap_or_default().to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })
}

fn audited(cluster: &Cluster) -> Result<Vec<String>> {
    let entries = cluster.ctl(&["audit", "-o", "json"])?.json()?;
    let list = entries["entries"].as_array().context("no entries")?;
    Ok(list.iter().map(ToString::to_string).collect())
}

fn until_audited(cluster: &Cluster, what: &str, words: &[&str]) -> Result<()> {
    until(&format!("the audit log to show {what}"), TIMEOUT, || {
        let entries = audited(cluster).map_err(|error| format!("{error:#}"))?;
        let is_it = |entry: &String| words.iter().all(|word| entry.contains(word));
        if entries.iter().any(is_it) { Ok(()) } else { Err(entries.join("\n")) }
    })
}

fn is_member(cluster: &Cluster, name: &str) -> Result<bool> {
    let members = cluster.members()?;
    let list = members["members"].as_array().context("no members")?;
    Ok(list.iter().any(|member| member["name"] == name))
}

/// Creates a worker's token.
fn create_token(cluster: &Cluster, more: &[&str]) -> Result<String> {
    let args = [&["token", "create", "--role", "worker", "-o", "json"], more].concat();
    let made = cluster.ctl(&args)?.json()?;
    Ok(made["token"].as_str().context("no token")?.to_owned())
}

/// Writes a variant of the cluster's file for one node.
fn variant(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let mut document = cluster.document()?;
    change(&mut document);
    let file = cluster.node(name).host.dir().join("node.yaml");
    cluster.write_config(&file, &document)?;
    Ok(file)
}

/// A node whose only peer is a man in the middle, with a real cluster behind it. It relays every
/// message in both directions. Neither side accepts the other, because each bound its proof to its
/// own TLS session. Without the relay the same node joins at once.
#[test]
fn a_man_in_the_middle_admits_no_node_and_learns_no_name() {
    scenario("relay", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        let attacker = lab.host("attacker")?;
        let here = format!("{}:50000", attacker.address());
        let mut command = attacker.command(binary("attacker")?);
        command.args(["relay", &here, &target(&cluster, "cp-1")]);
        let relay = attacker.spawn(command, "relay")?;
        let passed = || std::fs::read_to_string(relay.log()).unwrap_or_default();
        until("the relay to be ready", TIMEOUT, || {
            if passed().contains("ready") { Ok(()) } else { Err(passed()) }
        })?;

        let file = variant(&cluster, "worker-1", |document| {
            document["machine"]["discovery"] = json!({"mdns": false, "static": [here]});
        })?;
        cluster.start_with("worker-1", &file, &[])?;
        until_log(&cluster, "worker-1", "refused the token")?;
        let address = attacker.address().to_string();
        let words = ["refuse-stranger", "the proof of the token is wrong", &address];
        until_audited(&cluster, "the relay's wrong proof", &words)?;
        let bytes = until("the relay to have passed messages both ways", TIMEOUT, || {
            let seen = passed();
            let counts = seen.lines().filter_map(|line| line.strip_prefix("passed "));
            let both = |line: &&str| {
                line.split(' ').all(|count| count.parse::<u64>().is_ok_and(|count| count > 100))
            };
            counts.rev().find(both).map(str::to_owned).ok_or(seen)
        })?;
        report(format_args!("the relay passed {bytes} bytes (up, down) of application messages"));
        ensure!(!is_member(&cluster, "worker-1")?, "a relayed node was admitted");

        cluster.kill("worker-1")?;
        cluster.start("worker-1")?;
        cluster.until_members("worker-1 without the man in the middle", |members| {
            members.to_string().contains("worker-1")
        })?;
        Ok(())
    });
}

/// Unknown, expired, revoked and used-up tokens, each in the file of a real node.
#[test]
fn an_invalid_token_admits_no_node_and_is_audited() {
    scenario("bad-tokens", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(5))?;
        let mut document = cluster.document()?;
        document["cluster"]["clusterName"] = CLUSTER.into();
        cluster.write_config(&cluster.config, &document)?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        let status = cluster.ctl(&["status", "-o", "json"])?.json()?;
        let cluster_id = status["clusterId"].as_str().context("no cluster id")?.to_owned();
        let create = |more: &[&str]| create_token(&cluster, more);
        let once = create(&["--uses", "1"])?;
        let expired = create(&["--ttl", "1s"])?;
        let revoked = create(&[])?;
        let id = |token: &str| token.split('.').next().unwrap_or_default().to_owned();
        cluster.ctl(&["token", "revoke", &id(&revoked)])?.success()?;
        let unknown = muster_pki::token::Token::generate().expose().to_string();
        let start = |cluster: &mut Cluster, name: &str, token: &str| -> Result<()> {
            let file = variant(cluster, name, |file| {
                file["machine"]["token"] = json!(token);
                if name != "worker-1" {
                    file["cluster"]["clusterName"] = json!("unknown");
                }
            })?;
            cluster.start_with(name, &file, &[])
        };
        start(&mut cluster, "worker-1", &once)?;
        cluster.until_members("worker-1", |m| m.to_string().contains("worker-1"))?;
        until("the token to expire", TIMEOUT, || {
            let tokens =
                cluster.ctl(&["token", "list", "-o", "json"]).and_then(CommandOutput::json);
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
            // Its own file has another cluster name.
            let log = log_of(&cluster, name)?;
            for secret in [CLUSTER, &cluster_id[..8], "cp-1", "cp-2", "cp-3"] {
                ensure!(!log.contains(secret), "{name} has learned {secret}: {log}");
            }
        }
        // The admitted node has learned them, in a log of the same kind.
        let log = log_of(&cluster, "worker-1")?;
        ensure!(log.contains(&cluster_id[..8]), "the searched words are in no log: {log}");
        let tokens = cluster.ctl(&["token", "list", "-o", "json"])?.json()?.to_string();
        for status in ["used-up", "expired", "revoked"] {
            ensure!(tokens.contains(status), "no token is {status}: {tokens}");
        }
        Ok(())
    });
}

/// An attacker has copied a node's state directory: key, certificate, addresses. While the node is
/// a member, the attacker is that node. Once it is removed, every call is rejected.
#[test]
fn the_stolen_state_of_a_removed_member_is_rejected() {
    scenario("stolen", |lab| {
        let mut cluster = started(lab, &Plan::of(3).workers(1))?;
        cluster.until_members("worker-1", |m| m.to_string().contains("worker-1"))?;
        let attacker = lab.host("attacker")?;
        let stolen = steal_identity(&cluster, "worker-1", &attacker)?;
        cluster.kill("worker-1")?;
        let (stolen, to) = (stolen.display().to_string(), target(&cluster, "cp-1"));
        let before = run_attacker(&attacker, &["impersonate", &stolen, &to])?;
        for call in NODE_CALLS {
            let wanted = match call {
                "Report" | "Watch" => format!("{call}: OK"),
                _ => format!("{call}: PermissionDenied"),
            };
            ensure!(before.contains(&wanted), "a worker's {call}: {before}");
        }
        ensure!(before.contains("Handshake: answered"), "{before}");
        ensure!(before.contains("Forged: refused by the node's alert"), "{before}");
        cluster.ctl(&["node", "remove", "worker-1", "--yes"])?.success()?;
        for name in ["cp-1", "cp-2", "cp-3"] {
            until_removed(&attacker, &stolen, &target(&cluster, name))?;
        }
        ensure!(!cluster.members()?.to_string().contains("6.6.6"), "a report was accepted");
        Ok(())
    });
}

/// The same with a control-plane node. Muster rejects it. etcd has no revocation. Its client port
/// accepts the node's certificates from anywhere until they expire (SECURITY.md). Its peer port
/// accepts them from the addresses in them, so from the removed machine's own. There the removed
/// member's Raft messages are rejected.
#[test]
fn the_stolen_state_of_a_removed_control_plane_member_is_accepted_by_etcd_alone() {
    scenario("stolen-control-plane", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(4).expect(3))?;
        cluster.start_all()?;
        until_etcd_has(&cluster, 4)?;
        cluster.until_healthy()?;
        cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
        let removed = removable(&cluster)?;
        let attacker = lab.host("attacker")?;
        let stolen = steal_identity(&cluster, &removed, &attacker)?;
        let tls = cluster.node(&removed).host.dir().join("state/etcd/tls");
        for file in ["ca.crt", "server.pem", "peer.pem"] {
            std::fs::copy(tls.join(file), stolen.join(file)).with_context(|| file.to_owned())?;
        }
        let ids = etcd_ids(&cluster)?;
        cluster.kill(&removed)?;
        cluster.ctl(&["node", "remove", &removed, "--yes"])?.success()?;
        until_etcd_has(&cluster, 3)?;
        let left: Vec<_> = cluster.names().into_iter().filter(|name| *name != removed).collect();
        let dir = stolen.display().to_string();
        for name in &left {
            until_removed(&attacker, &dir, &target(&cluster, name))?;
        }
        for name in &left {
            let address = cluster.node(name).host.address().to_string();
            for certificate in ["server.pem", "peer.pem"] {
                let read = etcd_get(&attacker, &stolen, certificate, &address)?;
                ensure!(read.out.contains("yes"), "{certificate} at {name}: {read:?}");
            }
        }
        let (name, own_address) = (&left[0], &cluster.node(&removed).host);
        let address = cluster.node(name).host.address().to_string();
        let elsewhere = etcd_peer(&attacker, &stolen, &address, &["/members"])?;
        ensure!(elsewhere.code != Some(0), "peer.pem from anywhere: {elsewhere:?}");
        let there = etcd_peer(own_address, &stolen, &address, &["/members"])?;
        ensure!(there.out.contains("clientURLs"), "peer.pem from its own address: {there:?}");
        let (from, to) = (&ids[removed.as_str()], &ids[name.as_str()]);
        let headers = [
            format!("X-Server-From: {from}"),
            format!("X-Raft-To: {to}"),
            format!("X-Etcd-Cluster-ID: {}", ids["cluster"]),
            "X-Server-Version: 3.4.0".to_owned(),
            "X-Min-Cluster-Version: 3.0.0".to_owned(),
        ];
        let stream = format!("/raft/stream/message/{from}");
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let words: Vec<&str> = std::iter::once(stream.as_str()).chain(headers).collect();
        let raft = etcd_peer(own_address, &stolen, &address, &words)?;
        ensure!(raft.out.contains(" 410"), "the removed member's Raft: {raft:?}");
        Ok(())
    });
}

/// Returns a node that does not lead.
fn removable(cluster: &Cluster) -> Result<String> {
    let leader = cluster.members()?["leader"].as_str().context("no leader")?.to_owned();
    cluster.names().into_iter().rfind(|name| *name != leader).context("the cluster has one node")
}

/// Only the key of a certificate request is used.
#[test]
fn a_certificate_request_that_claims_more_gets_no_more() {
    scenario("excessive-request", |lab| {
        let cluster = started(lab, &Plan::of(1))?;
        let (operator, node) =
            (OperatorCredentials::of(&cluster)?, cluster.node("cp-1").host.address());
        let request = excessive_request(&cluster.operator)?;
        let certificate_request = std::fs::read(request)?;
        let request = EtcdClientConfigRequest { certificate_request, ttl_ms: 0 };
        let reply: EtcdClientConfigReply = inside(&cluster.operator, async move || {
            let mut client = operator.connect(node).await?;
            Ok(client.etcd_client_config(request).await?.into_inner())
        })?;
        let leaf = CertificateDer::from_pem_slice(reply.certificate_pem.as_bytes())?;
        let leaf = describe(&leaf)?;
        ensure!(leaf.subject == "CN=muster:admin", "{leaf:?}");
        ensure!(leaf.alternative_names.is_empty(), "{leaf:?}");
        let file = cluster.operator.dir().join("leaf.pem");
        std::fs::write(&file, reply.certificate_pem)?;
        let mut command = cluster.operator.command("openssl");
        let text =
            output_of(command.args(["x509", "-noout", "-text", "-in"]).arg(file))?.success()?;
        for claimed in ["masters", "control-plane", "root", "CA:TRUE", "Certificate Sign", "Server"]
        {
            ensure!(!text.contains(claimed), "the leaf contains {claimed}: {text}");
        }
        ensure!(text.contains("TLS Web Client Authentication"), "{text}");
        Ok(())
    });
}

/// Makes a request with OpenSSL that claims another common name, an organisation with full rights
/// in Kubernetes, a node's names, and the rights of an authority.
fn excessive_request(host: &Host) -> Result<PathBuf> {
    let (key, request) = (host.dir().join("excessive.key"), host.dir().join("excessive.der"));
    let mut command = host.command("openssl");
    command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-subj", "/O=system:masters/CN=root", "-outform", "DER"]);
    command.args(["-addext", "subjectAltName=DNS:control-plane.muster.internal,IP:10.77.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
    command
        .args(["-addext", "keyUsage=keyCertSign"])
        .args(["-addext", "extendedKeyUsage=serverAuth"]);
    output_of(command.arg("-keyout").arg(key).arg("-out").arg(&request))?.success()?;
    let claimed = std::fs::read(&request)?;
    let is_in = |word: &str| claimed.windows(word.len()).any(|window| window == word.as_bytes());
    ensure!(
        is_in("system:masters") && is_in("control-plane.muster.internal"),
        "the request claims nothing"
    );
    Ok(request)
}

/// Rejections, and whether the audit log has them. It has those of tokens and joins, and signs of a
/// stolen machine. A rejected certificate is only in the node's own log, at `debug`, because any
/// peer can make one. (Invalid tokens: see above.)
#[test]
fn rejections_are_audited_as_the_table_says() {
    scenario("audited", |lab| {
        let mut cluster = started(lab, &Plan::of(1).workers(1))?;
        cluster.until_members("worker-1", |m| m.to_string().contains("worker-1"))?;
        let to = target(&cluster, "cp-1");
        let hosts: BTreeMap<_, _> = ["member", "other-cluster", "removed", "stranger"]
            .into_iter()
            .map(|name| Ok((name, lab.host(name)?)))
            .collect::<Result<_>>()?;
        let stolen = steal_identity(&cluster, "worker-1", &hosts["member"])?.display().to_string();
        let foreign = {
            let other = LoopbackMachine::new()?;
            let _node = RunningNode::start(&other, || other.ctl(&["health"])?.success().map(drop))?;
            copy_identity(&other.state(), hosts["other-cluster"].dir())?.display().to_string()
        };
        let output = run_attacker(&hosts["member"], &["impersonate", &stolen, &to])?;
        ensure!(output.contains("Propose: PermissionDenied"), "{output}");
        all_rejected(&run_attacker(&hosts["other-cluster"], &["impersonate", &foreign, &to])?)?;
        cluster.kill("worker-1")?;
        cluster.ctl(&["node", "remove", "worker-1", "--yes"])?.success()?;
        until_removed(&hosts["removed"], &stolen, &to)?;
        // With its key and a valid token, but without its certificate.
        std::fs::remove_file(cluster.node("worker-1").host.dir().join("state/membership.json"))?;
        cluster.start("worker-1")?;
        until_audited(&cluster, "the removed member's join", &["\"admit\"", "was removed"])?;
        // Audited after everything before.
        run_attacker(&hosts["stranger"], &["empty-proof", &to])?;
        let address = |name: &str| format!("\"{} with token ", hosts[name].address());
        until_audited(&cluster, "the empty proof", &["refuse-stranger", &address("stranger")])?;

        let entries = audited(&cluster)?;
        let is_there = |words: &[&str]| {
            entries.iter().any(|entry| words.iter().all(|word| entry.contains(word)))
        };
        let as_worker = |name: &str| format!("\"{} as node worker-1\"", hosts[name].address());
        let table: [(&str, &[&str], bool); 5] = [
            ("a worker's forbidden call", &[&as_worker("member"), "a worker called"], true),
            (
                "a member of another cluster",
                &[&hosts["other-cluster"].address().to_string()],
                false,
            ),
            ("a removed member's renewal", &[&as_worker("removed"), "a removed node asked"], true),
            ("a removed member that joins", &["\"admit\"", "worker-1", "was removed"], true),
            ("an empty proof", &["refuse-stranger", &address("stranger")], true),
        ];
        for (what, words, wanted) in table {
            ensure!(is_there(words) == wanted, "{what}, audited: {}: {entries:#?}", !wanted);
        }
        Ok(())
    });
}

/// A member of one cluster, with a valid certificate of its own authority, calls another cluster.
/// It accepts any server, so that it is the node that rejects.
#[test]
fn a_member_of_another_cluster_is_a_stranger() {
    scenario("other-cluster", |lab| {
        let ours = started(lab, &Plan::of(1))?;
        let other = LoopbackMachine::new()?;
        let node = RunningNode::start(&other, || other.ctl(&["health"])?.success().map(drop))?;
        let attacker = lab.host("attacker")?;
        let stolen = copy_identity(&other.state(), attacker.dir())?.display().to_string();
        drop(node);
        let answers = run_attacker(&attacker, &["impersonate", &stolen, &target(&ours, "cp-1")])?;
        all_rejected(&answers)?;
        ensure!(answers.contains("Renew: OK refused REASON_NOT_A_MEMBER"), "{answers}");
        Ok(())
    });
}

/// Waits until a node has learned of the removal and rejects the stolen state.
fn until_removed(attacker: &Host, stolen: &str, to: &str) -> Result<()> {
    until(&format!("{to} to reject the stolen state"), TIMEOUT, || {
        let output = run_attacker(attacker, &["impersonate", stolen, to]);
        let output = output.map_err(|error| format!("{error:#}"))?;
        all_rejected(&output).map_err(|error| format!("{error:#}"))?;
        if output.contains("Renew: OK refused REASON_REMOVED") { Ok(()) } else { Err(output) }
    })
}

/// Checks that the node rejected both certificates and every member call.
fn all_rejected(answers: &str) -> Result<()> {
    for certificate in ["Handshake", "Forged"] {
        let wanted = format!("{certificate}: refused by the node's alert");
        ensure!(answers.contains(&wanted), "no {wanted}: {answers}");
    }
    for call in NODE_CALLS {
        let is_refused = answers.contains(&format!("{call}: Unauthenticated"))
            || answers.contains(&format!("{call}: Unavailable"));
        ensure!(is_refused, "{call} was not refused: {answers}");
    }
    Ok(())
}
