//! etcd as operators and their tools see it: the commands, the credentials, the certificates, and a
//! new cluster that starts with a snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::output_of;
use muster_tests::lab::run;
use muster_tests::{Cluster, Lab, Plan, scenario, until};
use serde_json::Value;

fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn ask(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    cluster.ctl(&[args, &["-o", "json"]].concat())?.json()
}

fn etcd_leader(cluster: &Cluster) -> Result<String> {
    until("etcd to have one leader", HEALTHY, || {
        let status = ask(cluster, &["etcd", "status"]).map_err(|e| format!("{e:#}"))?;
        let leaders: Vec<_> =
            list(&status, "members").iter().filter(|m| m["leader"] == true).collect();
        match leaders.as_slice() {
            [leader] => Ok(text(leader, "node").to_owned()),
            _ => Err(status.to_string()),
        }
    })
}

fn get(cluster: &Cluster, key: &str) -> Result<String> {
    let value = cluster.etcdctl(&["get", key, "--print-value-only"])?.success()?;
    Ok(value.trim_end().to_owned())
}

/// Runs `openssl` on the operator's machine, without standard input.
fn openssl(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let mut command = cluster.operator.command("openssl");
    output_of(command.args(args).stdin(std::process::Stdio::null()))?.success()
}

#[test]
fn operators_look_after_etcd_and_a_new_cluster_begins_with_its_snapshot() {
    scenario("etcd", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3).workers(1))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        cluster.until_members("the worker", |m| list(m, "members").len() == 4)?;
        commands_tell_and_do(&cluster)?;
        stock_tools_work_until_the_credentials_expire(&cluster)?;
        openssl_accepts_every_certificate(&cluster)?;
        leadership_goes_to_a_member_that_answers(&mut cluster)?;
        let snapshot = snapshot(&cluster, lab)?;
        for name in cluster.names() {
            cluster.kill(&name)?;
        }
        scenario("restored", |fresh| begins_with(fresh, &snapshot));
        Ok(())
    });
}

fn commands_tell_and_do(cluster: &Cluster) -> Result<()> {
    let members = ask(cluster, &["etcd", "members"])?;
    let names: Vec<_> = list(&members, "members").iter().map(|m| text(m, "name")).collect();
    ensure!(names.len() == 3 && names.iter().all(|n| n.starts_with("cp-")), "{members}");
    ensure!(list(&members, "members").iter().all(|m| m["learner"] == false), "{members}");

    let status = ask(cluster, &["etcd", "status"])?;
    let answers = list(&status, "members");
    let fit = |m: &Value| m["unreachable"].is_null() && text(m, "version").starts_with("3.");
    ensure!(answers.len() == 3 && answers.iter().all(fit), "{status}");

    let alarms = ask(cluster, &["etcd", "alarms", "--disarm"])?;
    ensure!(list(&alarms, "alarms").is_empty(), "{alarms}");

    let leader = etcd_leader(cluster)?;
    let other = names.iter().find(|name| **name != leader).context("no other member")?;
    let kept = ask(cluster, &["etcd", "forfeit-leadership", "-n", other])?;
    ensure!(kept["moved"] == false && text(&kept, "leader") == leader, "{kept}");
    let moved = ask(cluster, &["etcd", "forfeit-leadership", "-n", &leader])?;
    ensure!(moved["moved"] == true && text(&moved, "leader") != leader, "{moved}");
    ensure!(etcd_leader(cluster)? == text(&moved, "leader"), "{moved}");

    let sizes = ask(cluster, &["etcd", "defrag", "-n", other])?;
    let (before, after) = (sizes["sizeBefore"].as_i64(), sizes["sizeAfter"].as_i64());
    ensure!(after > Some(0) && after <= before, "{sizes}");

    let audit = ask(cluster, &["audit"])?.to_string();
    ensure!(audit.contains("defrag") && audit.contains("leadership"), "not audited: {audit}");
    let unknown = cluster.ctl(&["etcd", "defrag", "-n", "cp-9"])?;
    ensure!(unknown.failure(1)?.contains("cp-9"), "it does not name the node");
    Ok(())
}

/// The first of etcd's list was selected, even if it had been down for a week.
fn leadership_goes_to_a_member_that_answers(cluster: &mut Cluster) -> Result<()> {
    let leader = etcd_leader(cluster)?;
    let members = ask(cluster, &["etcd", "members"])?;
    let names: Vec<_> = list(&members, "members").iter().map(|m| text(m, "name")).collect();
    let others: Vec<_> = names.into_iter().filter(|name| *name != leader).collect();
    let [first, second] = others.as_slice() else { anyhow::bail!("{others:?}") };
    cluster.kill(first)?;
    let moved = ask(cluster, &["etcd", "forfeit-leadership", "-n", &leader])?;
    ensure!(moved["moved"] == true && text(&moved, "leader") == *second, "{moved}");
    cluster.start(first)?;
    cluster.until_healthy()
}

fn stock_tools_work_until_the_credentials_expire(cluster: &Cluster) -> Result<()> {
    cluster.etcdctl(&["put", "kept", "yes"])?.success()?;
    ensure!(get(cluster, "kept")? == "yes", "etcd lost a write");
    let health = cluster.etcdctl(&["endpoint", "health", "--cluster", "-w", "json"])?.json()?;
    let healthy = |list: &Vec<Value>| list.iter().filter(|e| e["health"] == true).count();
    ensure!(health.as_array().map(healthy) == Some(3), "{health}");
    // Without a certificate of etcd's authority no client is served.
    let address = cluster.node("cp-1").host.address();
    let mut bare = cluster.operator.command("etcdctl");
    bare.args(["--dial-timeout=2s", "--command-timeout=2s", "--insecure-skip-tls-verify"]);
    bare.arg(format!("--endpoints=https://{address}:2379")).args(["get", "kept"]);
    let stranger = output_of(bare.env("ETCDCTL_API", "3"))?;
    ensure!(stranger.code != Some(0) && !stranger.out.contains("yes"), "{}", stranger.out);

    let short = cluster.operator.dir().join("short");
    let out = short.display().to_string();
    ask(cluster, &["etcd", "client-config", "--ttl", "8s", "--out", &out])?;
    for file in fs::read_dir(&short)? {
        let file = file?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:04o}", file.path().display());
    }
    let by_short = || -> Result<_> {
        let mut command = cluster.operator.command("sh");
        let script = ". \"$0/etcdctl.env\"; exec etcdctl --dial-timeout=2s --command-timeout=2s \
                      get kept --print-value-only";
        output_of(command.args(["-c", script]).arg(&short))
    };
    ensure!(by_short()?.success()?.trim() == "yes", "credentials that have not expired");
    until("etcd to refuse expired credentials", Duration::from_secs(30), || match by_short() {
        Ok(output) if output.code != Some(0) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })?;
    ensure!(get(cluster, "kept")? == "yes", "etcd refuses more than the expired credentials");
    Ok(())
}

/// Writes a PEM certificate to a file named by its SHA-256.
fn keep(cluster: &Cluster, dir: &Path, pem: &str) -> Result<String> {
    let path = dir.join("one.pem");
    fs::write(&path, pem)?;
    let shown = openssl(
        cluster,
        &["x509", "-in", &path.display().to_string(), "-noout", "-fingerprint", "-sha256"],
    )?;
    let digest = shown.split('=').nth(1).context("openssl shows no fingerprint")?;
    let digest = digest.trim().replace(':', "").to_lowercase();
    fs::rename(&path, dir.join(format!("{digest}.pem")))?;
    Ok(digest)
}

/// Returns the certificate that a server presents, after `openssl s_client` has verified it.
fn shown_at(cluster: &Cluster, place: &str, authority: &Path, more: &[&str]) -> Result<String> {
    let authority = authority.display().to_string();
    let args = ["s_client", "-connect", place, "-CAfile", &authority, "-verify_return_error"];
    let mut command = cluster.operator.command("timeout");
    command.args(["10", "openssl"]).args(args).args(more).stdin(std::process::Stdio::null());
    let output = output_of(&mut command)?;
    ensure!(
        output.out.contains("Verify return code: 0 (ok)"),
        "{place}: {}{}",
        output.out,
        output.err
    );
    let begin = output.out.find("-----BEGIN").context("no certificate is shown")?;
    let end = output.out.find("-----END CERTIFICATE-----").context("no certificate is shown")?;
    Ok(format!("{}-----END CERTIFICATE-----\n", &output.out[begin..end]))
}

/// Returns the node certificate in a state directory.
fn node_certificate(cluster: &Cluster, name: &str) -> Result<String> {
    let file = cluster.node(name).host.dir().join("state/membership.json");
    let membership: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let der = membership["chain"][0].as_str().context("no certificate")?;
    let lines: Vec<_> =
        der.as_bytes().chunks(64).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}

fn openssl_accepts_every_certificate(cluster: &Cluster) -> Result<()> {
    let dir = cluster.operator.dir().join("pki");
    fs::create_dir(&dir)?;
    let pki = ask(cluster, &["pki", "show"])?;
    let authorities = authorities(cluster, &dir, &pki)?;
    let authority = |name: &str| -> Result<&PathBuf> {
        authorities.get(name).with_context(|| format!("no authority {name}"))
    };
    for name in cluster.names() {
        keep(cluster, &dir, &node_certificate(cluster, &name)?)?;
        if name.starts_with("worker") {
            continue;
        }
        let address = cluster.node(&name).host.address().to_string();
        let (etcd, machine) = (authority("etcd")?, authority("machine")?);
        for port in [2379, 2380] {
            let ip = ["-verify_ip", &address];
            keep(cluster, &dir, &shown_at(cluster, &format!("{address}:{port}"), etcd, &ip)?)?;
        }
        let host = ["-verify_hostname", "control-plane.muster.internal"];
        keep(cluster, &dir, &shown_at(cluster, &format!("{address}:50000"), machine, &host)?)?;
    }
    let nodes = list(&pki, "nodes");
    ensure!(nodes.len() == 4, "{pki}");
    for node in nodes {
        let leaves = list(node, "leaves");
        let wanted = if text(node, "node").starts_with("worker") { 1 } else { 3 };
        ensure!(node["unreachable"].is_null() && leaves.len() == wanted, "{node}");
        for leaf in leaves {
            let file = dir.join(format!("{}.pem", text(leaf, "fingerprint")));
            ensure!(
                file.exists(),
                "the certificate is in no file and presented by no server: {node} {leaf}"
            );
            let (file, ca) = (file.display().to_string(), authority(text(leaf, "authority"))?);
            let ca = ca.display().to_string();
            for purpose in ["sslserver", "sslclient"] {
                let args = ["verify", "-x509_strict", "-CAfile", &ca, "-purpose", purpose, &file];
                openssl(cluster, &args).with_context(|| leaf.to_string())?;
            }
            let id = ["x509", "-in", &file, "-noout", "-checkend", "3600"];
            openssl(cluster, &id).with_context(|| format!("it expires within the hour: {leaf}"))?;
        }
    }
    Ok(())
}

/// Writes every authority to a file, after `openssl` has accepted it.
fn authorities(cluster: &Cluster, dir: &Path, pki: &Value) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for authority in list(pki, "authorities") {
        let name = text(authority, "name").to_owned();
        let digest = keep(cluster, dir, text(authority, "certificate"))?;
        ensure!(digest == text(authority, "fingerprint"), "{authority}");
        let file = dir.join(format!("{digest}.pem"));
        let path = file.display().to_string();
        openssl(cluster, &["verify", "-x509_strict", "-check_ss_sig", "-CAfile", &path, &path])?;
        files.insert(name, file);
    }
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    ensure!(names == ["etcd", "front-proxy", "kubernetes", "machine"], "{names:?}");
    // No authority verifies what another has issued.
    for (name, file) in &files {
        for (other, its) in files.iter().filter(|(other, _)| *other != name) {
            let (file, its) = (file.display().to_string(), its.display().to_string());
            let crossed = openssl(cluster, &["verify", "-CAfile", &its, &file]);
            ensure!(crossed.is_err(), "{other} verifies {name}");
        }
    }
    let key = text(pki, "serviceAccountKey");
    let is_digest = key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
    ensure!(is_digest, "not a SHA-256: {key}");
    Ok(files)
}

fn snapshot(cluster: &Cluster, lab: &Lab) -> Result<PathBuf> {
    let file = lab.dir().join("etcd.snapshot");
    let path = file.display().to_string();
    let snapshot = ask(cluster, &["etcd", "snapshot", &path, "-n", "cp-3"])?;
    let sum = run("sha256sum", &[&path])?;
    ensure!(sum.starts_with(text(&snapshot, "sha256")) && sum.len() > 64, "{snapshot}: {sum}");
    ensure!(snapshot["bytes"].as_u64() == Some(fs::metadata(&file)?.len()), "{snapshot}");
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others can read it");
    let again = cluster.ctl(&["etcd", "snapshot", &path])?;
    ensure!(again.code == Some(1), "it writes over a file: {}{}", again.out, again.err);
    ensure!(run("sha256sum", &[&path])? == sum, "the snapshot was touched");
    let status = cluster.etcdctl(&["snapshot", "status", &path, "-w", "json"])?.json()?;
    ensure!(status["totalKey"].as_u64() > Some(0), "{status}");
    Ok(file)
}

/// A new cluster on new machines starts with the data once, and never again.
fn begins_with(lab: &Lab, snapshot: &Path) -> Result<()> {
    let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
    let config = cluster.config.clone();
    let path = snapshot.display().to_string();
    let restore = ["--restore-etcd", path.as_str()];
    for name in cluster.names() {
        cluster.start_with(&name, &config, &restore)?;
    }
    cluster.until_healthy()?;
    ensure!(get(&cluster, "kept")? == "yes", "the data of the snapshot is not there");
    let members = ask(&cluster, &["etcd", "members"])?;
    ensure!(list(&members, "members").len() == 3, "{members}");

    cluster.etcdctl(&["put", "kept", "changed"])?.success()?;
    cluster.etcdctl(&["put", "later", "yes"])?.success()?;
    for name in cluster.names() {
        cluster.kill(&name)?;
    }
    for name in cluster.names() {
        cluster.start_with(&name, &config, &restore)?;
    }
    cluster.until_healthy()?;
    ensure!(get(&cluster, "kept")? == "changed", "a restart has restored again");
    ensure!(get(&cluster, "later")? == "yes", "a restart has restored again");
    Ok(())
}
