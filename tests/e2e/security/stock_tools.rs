//! Common tools against a cluster that they have no access to: nmap, OpenSSL, and an independent
//! QUIC implementation (ngtcp2 over `GnuTLS`). They see that a TLS and a QUIC server exist, and
//! nothing about the cluster.

#![allow(clippy::print_stderr, reason = "the tools' output is worth reading")]

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use muster_pki::inspect::describe;
use muster_tests::ctl::{binary, output_of};
use muster_tests::{Cluster, Host, Plan, scenario};

/// Timeout of a tool in seconds.
const TIMEOUT: &str = "90";

/// Values that a stranger must not learn.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn of(cluster: &Cluster) -> Result<Self> {
        let document = cluster.document()?;
        let token = document["machine"]["token"].as_str().context("no token")?;
        let (id, secret) = token.split_once('.').context("a token without a dot")?;
        let status = cluster.ctl(&["status", "-o", "json"])?.json()?;
        let cluster_id = status["clusterId"].as_str().context("no cluster id")?.to_owned();
        let mut secrets = vec![
            ("the cluster's name", "umbrella-corp".to_owned()),
            ("the token's id", id.to_owned()),
            ("the token's secret", secret.to_owned()),
            ("the cluster's id", cluster_id),
            ("the version", format!("musterd {}", muster_types::VERSION)),
            ("the version", format!("muster/{}", muster_types::VERSION)),
            ("the program's name", "musterd".to_owned()),
        ];
        for name in cluster.names() {
            secrets.push(("a node's name", name.clone()));
            let state = cluster.node(&name).host.dir().join("state");
            ensure!(state.exists(), "{} is missing", state.display());
        }
        Ok(Self(secrets))
    }

    /// Checks that none of them is in a tool's output or in a certificate.
    fn are_not_in(&self, whose: &str, shown: &[u8]) -> Result<()> {
        for (what, word) in &self.0 {
            let is_there = shown
                .windows(word.len())
                .any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
            let text = String::from_utf8_lossy(shown);
            ensure!(!is_there, "{whose} shows {what} ({word}): {text}");
        }
        Ok(())
    }
}

/// Runs a tool on a host with a timeout and returns all its output.
fn tool(host: &Host, words: &[&str]) -> Result<String> {
    let mut command = host.command("timeout");
    let output = command.arg(TIMEOUT).args(words).stdin(Stdio::null()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    let is_missing = output.status.code() == Some(127);
    ensure!(!is_missing, "{} is not installed (see tests/run.sh): {all}", words[0]);
    Ok(all)
}

fn in_path(name: &str) -> Result<()> {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" > /dev/null", name]).status()?;
    ensure!(found.success(), "{name} is missing: tests/run.sh installs it");
    Ok(())
}

#[test]
fn stock_tools_learn_no_more_than_that_a_server_is_there() {
    scenario("stock-tools", |lab| {
        for name in ["nmap", "openssl", "gtlsclient"] {
            in_path(name)?;
        }
        let mut cluster = Cluster::plan(lab, &Plan::of(1).workers(1))?;
        let mut document = cluster.document()?;
        document["cluster"]["clusterName"] = "umbrella-corp".into();
        cluster.write_config(&cluster.config, &document)?;
        cluster.start_all()?;
        cluster.until_members("both", |members| members.to_string().contains("worker-1"))?;
        cluster.until_healthy()?;
        let (secrets, stranger) = (Secrets::of(&cluster)?, lab.host("stranger")?);
        for node in ["cp-1", "worker-1"] {
            let address = cluster.node(node).host.address().to_string();
            secrets.are_not_in("nmap", scanned(&stranger, &address)?.as_bytes())?;
            let shown = over_tcp(&stranger, &address)?;
            secrets.are_not_in("the TCP port", &shown)?;
            let shown = over_quic(&stranger, &address)?;
            secrets.are_not_in("the UDP port", shown.as_bytes())?;
            looked_at(&stranger, &address, &secrets)?;
        }
        Ok(())
    });
}

/// Runs nmap's service and TLS probes on both ports.
fn scanned(stranger: &Host, address: &str) -> Result<String> {
    let tcp = ["nmap", "-n", "-Pn", "-sV", "--version-all", "-p", "T:50000", address];
    let scripts = ["--script", "ssl-cert,ssl-enum-ciphers,tls-alpn,tls-nextprotoneg,http-title"];
    let tcp = tool(stranger, &[&tcp[..], &scripts].concat())?;
    ensure!(tcp.contains("50000/tcp open"), "nmap does not see the TCP port: {tcp}");
    let udp = ["nmap", "-n", "-Pn", "-sU", "-sV", "--version-light", "-p", "U:50000"];
    let udp = tool(stranger, &[&udp[..], &["--max-retries", "1", address]].concat())?;
    ensure!(udp.contains("50000/udp"), "nmap did not look at the UDP port: {udp}");
    eprintln!("{tcp}\n{udp}");
    Ok(tcp + &udp)
}

/// Runs OpenSSL without and with a certificate. Returns its output and the server's certificate.
fn over_tcp(stranger: &Host, address: &str) -> Result<Vec<u8>> {
    let (key, own) = (stranger.dir().join("key.pem"), stranger.dir().join("own.pem"));
    let (key, own) = (key.display().to_string(), own.display().to_string());
    let make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x"];
    tool(stranger, &[&make[..], &["-keyout", &key, "-out", &own]].concat())?;
    let to = format!("{address}:50000");
    let base = ["openssl", "s_client", "-connect", &to, "-showcerts", "-alpn", "h2"];
    let mut all = Vec::new();
    for with in [&[][..], &["-cert", &own, "-key", &key], &["-tls1_2"], &["-servername", "lab"]] {
        let output = tool(stranger, &[&base[..], with].concat())?;
        let is_old = with == ["-tls1_2"];
        ensure!(output.contains("BEGIN CERTIFICATE") != is_old, "{with:?}: {output}");
        ensure!(!output.contains("New, TLSv1.2"), "TLS 1.2 is spoken: {output}");
        all.extend_from_slice(output.as_bytes());
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    let begin = text.find("-----BEGIN CERTIFICATE-----").context("no certificate is shown")?;
    let file = stranger.dir().join("theirs.pem");
    fs::write(&file, &text[begin..])?;
    let file = file.display().to_string();
    let printed = tool(stranger, &["openssl", "x509", "-in", &file, "-noout", "-text"])?;
    ensure!(printed.contains("ED25519"), "not a certificate: {printed}");
    ensure!(!printed.contains("IP Address"), "the certificate shows an address: {printed}");
    eprintln!("{printed}");
    all.extend_from_slice(printed.as_bytes());
    Ok(all)
}

/// Runs ngtcp2's client, which speaks HTTP/3. QUIC answers it and rejects it.
fn over_quic(stranger: &Host, address: &str) -> Result<String> {
    let uri = format!("https://{address}:50000/");
    let words = ["gtlsclient", "--timeout=5s", "--exit-on-all-streams-close"];
    let output = tool(stranger, &[&words[..], &[address, "50000", &uri]].concat())?;
    ensure!(output.contains("CRYPTO_ERROR(0x1"), "it was not answered by a TLS alert: {output}");
    ensure!(output.contains("reason_len=0 "), "the answer gives a reason: {output}");
    ensure!(!output.contains("Negotiated ALPN"), "HTTP/3 was spoken: {output}");
    Ok(output)
}

/// Probes Muster's own protocols without a token.
fn looked_at(stranger: &Host, address: &str, secrets: &Secrets) -> Result<()> {
    let mut command = stranger.command(binary("attacker")?);
    let target = format!("{address}:50000");
    let seen = output_of(command.args(["probe", &target]))?.success()?;
    secrets.are_not_in("an answer over QUIC", seen.as_bytes())?;
    let mut protocols = 0;
    for line in seen.lines().filter_map(|line| line.strip_prefix("certificate ")) {
        let (protocol, hex) = line.split_once(' ').context("no certificate")?;
        let digits: Vec<char> = hex.chars().collect();
        let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16));
        let der = bytes.collect::<Result<Vec<u8>, _>>()?;
        secrets.are_not_in(&format!("the certificate on {protocol}"), &der)?;
        let described = describe(&der.into())?;
        eprintln!("{protocol}: {} by {}", described.subject, described.issuer);
        let names = described.alternative_names;
        ensure!(!names.iter().any(|name| name.starts_with("IP:")), "{protocol}: {names:?}");
        protocols += 1;
    }
    ensure!(protocols == 2, "certificates on {protocols} protocols, not on two: {seen}");
    for call in ["Greet", "Birth", "Join", "Anchor", "AppendEntries", "Prove"] {
        let wanted = format!("answer {call}: PermissionDenied \"\"");
        ensure!(seen.contains(&wanted), "{call} was answered otherwise: {seen}");
    }
    ensure!(seen.contains("answer Renew:"), "{seen}");
    Ok(())
}
