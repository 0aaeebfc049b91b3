//! What must not start says so in one sentence, with exit code 78, and changes nothing on disk.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{Said, binary};
use muster_tests::loopback::{Bench, Running, Tree, within};
use muster_tests::until;
use muster_types::{DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT};
use serde_json::json;

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A state directory as a first start makes it.
fn fresh_state(bench: &Bench) -> Result<()> {
    fs::create_dir(bench.state())?;
    mode(&bench.state(), 0o700)?;
    Ok(fs::write(bench.state().join("format"), "1\n")?)
}

/// A program that says `version` as etcd does, and nothing else.
fn etcd_that_says(bench: &Bench, version: &str) -> Result<std::path::PathBuf> {
    let path = bench.path("etcd");
    fs::write(&path, format!("#!/bin/sh\necho '{version}'\n"))?;
    mode(&path, 0o755)?;
    Ok(path)
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once_with_its_path_and_line() -> Result<()> {
    let bench = Bench::new()?;
    let text = bench.text()?;
    let token = text.lines().find(|line| line.trim_start().starts_with("token:"));
    let key = text.lines().find(|line| line.contains("publicKey:")).context("no key")?;
    let key = key.split("publicKey:").nth(1).context("no key")?.trim().trim_end_matches('}');
    bench.write(&format!(
        "machine:\n  type: contol-plane\n{}\n  network:\n    port: 70000\n    subnet: [10.0.0.0/8]\n\
         cluster:\n  clusterName: Bad Name\n  expct: 3\n  expect: 2\n  operators:\n    \
         - {{name: admin, role: admin, publicKey: {key}}}\n",
        token.context("no token")?,
    ))?;
    let err = bench.refused(&mut bench.musterd()?)?;
    let file = bench.config().display().to_string();
    let expected = [
        (2, "machine.type", "did you mean control-plane?"),
        (5, "machine.network.port", "from 1 to 65535, not 70000"),
        (6, "machine.network.subnet", "did you mean machine.network.subnets?"),
        (8, "cluster.clusterName", "Bad Name"),
        (9, "cluster.expct", "did you mean cluster.expect?"),
        (10, "cluster.expect", "use 1, 3, 5 or 7"),
    ];
    for (line, path, what) in expected {
        let begins = format!("{file}:{line}: {path}: ");
        let told = err.lines().find(|told| told.starts_with(&begins));
        ensure!(told.is_some_and(|told| told.contains(what)), "{begins}…{what} is not in:\n{err}");
    }
    ensure!(err.lines().count() == 1 + expected.len(), "more than was asked for:\n{err}");
    ensure!(!bench.state().exists(), "a state directory was made");
    Ok(())
}

#[test]
fn a_token_with_a_typo_is_recognised_before_any_network_use() -> Result<()> {
    let bench = Bench::new()?;
    let original = bench.text()?;
    bench.change(|document| {
        let token = &mut document["machine"]["token"];
        let mut typo = token.as_str().unwrap_or_default().to_owned();
        let last = typo.pop();
        typo.push(if last == Some('a') { 'b' } else { 'a' });
        *token = json!(typo);
    })?;
    // Its own directory: the trace is not the node's.
    let traces = tempfile::tempdir()?;
    let trace = traces.path().join("trace");
    let under_strace = |bench: &Bench| -> Result<Command> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=%network", "-o"]).arg(&trace);
        command.arg(binary("musterd")?).args(bench.arguments());
        Ok(command)
    };
    let err = bench.refused(&mut under_strace(&bench)?)?;
    ensure!(err.contains("machine.token") && err.contains("typo"), "{err}");
    let calls = fs::read_to_string(&trace)?;
    ensure!(!calls.contains("socket("), "it opened a socket:\n{calls}");
    ensure!(!bench.state().exists(), "a state directory was made");

    // The trace does show sockets where there are some.
    bench.write(&original)?;
    within(under_strace(&bench)?.arg("--check"), Duration::from_secs(20))?.success()?;
    let calls = fs::read_to_string(&trace)?;
    ensure!(calls.contains("socket("), "a trace of a whole check shows no socket:\n{calls}");
    Ok(())
}

#[test]
fn a_configuration_that_others_can_read_or_that_is_not_there_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    for bits in [0o644, 0o640, 0o604] {
        mode(&bench.config(), bits)?;
        let told = format!("{bits:04o}");
        bench.refused_with(&mut bench.musterd()?, &["node.yaml", &told, "chmod 0600"])?;
    }
    fs::remove_file(bench.config())?;
    bench.refused_with(&mut bench.musterd()?, &["node.yaml", "No such file"])
}

#[test]
fn an_unfit_state_directory_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    fs::write(bench.state(), "a file")?;
    bench.refused_with(&mut bench.musterd()?, &["state", "not a directory"])?;
    fs::remove_file(bench.state())?;

    fresh_state(&bench)?;
    fs::write(bench.state().join("format"), "2\n")?;
    bench.refused_with(&mut bench.musterd()?, &["newer musterd", "format 2", "install"])?;
    fs::write(bench.state().join("format"), "1\n")?;

    for bits in [0o755, 0o710, 0o701] {
        mode(&bench.state(), bits)?;
        let told = format!("{bits:04o}");
        bench.refused_with(&mut bench.musterd()?, &["state", &told, "chmod 0700"])?;
    }
    mode(&bench.state(), 0o700)?;

    let me = rustix::process::geteuid().as_raw();
    ensure!(me == 0, "giving a directory away needs root");
    std::os::unix::fs::chown(bench.state(), Some(12_345), None)?;
    bench.refused_with(&mut bench.musterd()?, &["belongs to user 12345", "runs as user 0"])?;
    std::os::unix::fs::chown(bench.state(), Some(me), None)?;

    fs::remove_file(bench.state().join("format"))?;
    fs::write(bench.state().join("photo.jpg"), "")?;
    bench.refused_with(&mut bench.musterd()?, &["photo.jpg", "not a state directory of Muster"])
}

/// Fails unless the log has a line with all of `words`.
fn has_logged(bench: &Bench, words: &[&str]) -> Result<()> {
    let log = fs::read_to_string(bench.log())?;
    let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(found, "no line with {words:?}: {log}");
    Ok(())
}

/// The port lies in the range of outgoing connections, so one of them may hold it for a moment.
/// musterd exited with 78, and systemd did not start it again.
#[test]
fn a_busy_port_is_waited_for_and_is_a_problem_for_the_check() -> Result<()> {
    let bench = Bench::new()?;
    let address = (bench.address(), DEFAULT_PORT);
    let is_healthy = || bench.ctl(&["health"]).and_then(Said::success).map_err(|e| e.to_string());
    let becomes_healthy = |node: Running| {
        until("the node to be healthy", HEALTHY, is_healthy)?;
        node.stop()
    };

    let udp = UdpSocket::bind(address)?;
    bench.refused_with(bench.musterd()?.arg("--check"), &["UDP", "50000", "in use"])?;
    let waits = ["port in use; waiting", "UDP", "50000"];
    let node = Running::start(&bench, || has_logged(&bench, &waits))?;
    drop(udp);
    becomes_healthy(node)?;

    let tcp = TcpListener::bind(address)?;
    bench.refused_with(bench.musterd()?.arg("--check"), &["TCP", "50000", "in use"])?;
    let waits = ["port in use; waiting", "TCP", "50000"];
    let node = Running::start(&bench, || has_logged(&bench, &waits))?;
    drop(tcp);
    becomes_healthy(node)
}

/// As where Debian's own etcd runs: Muster's could never start, and was tried for ever.
#[test]
fn a_port_of_etcd_in_use_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    for port in [ETCD_CLIENT_PORT, ETCD_PEER_PORT] {
        let _other = TcpListener::bind((bench.address(), port))?;
        let words = [&format!("TCP {}:{port}", bench.address()), "etcd", "in use", "systemctl"];
        bench.refused_with(&mut bench.musterd()?, &words)?;
        bench.refused_with(bench.musterd()?.arg("--check"), &words)?;
    }
    // A worker runs none.
    bench.change(|document| document["machine"]["type"] = json!("worker"))?;
    let _other = TcpListener::bind((bench.address(), ETCD_CLIENT_PORT))?;
    within(bench.musterd()?.arg("--check"), Duration::from_secs(20))?.success().map(drop)
}

/// The etcd of a killed `musterd` is killed with it and may still hold its ports for a moment. That is
/// no reason to refuse the next start, which would be the last one under systemd.
#[test]
fn a_start_right_after_a_kill_waits_for_the_end_of_the_old_etcd() -> Result<()> {
    let bench = Bench::new()?;
    let node = running(&bench)?;
    node.kill()?;
    let ending = TcpListener::bind((bench.address(), ETCD_PEER_PORT));
    let ending = ending.or_else(|_| {
        until("the old etcd to end", HEALTHY, || {
            TcpListener::bind((bench.address(), ETCD_PEER_PORT))
        })
    })?;
    let node = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Longer than the start takes to try the ports, shorter than it is patient.
            std::thread::sleep(Duration::from_secs(3));
            drop(ending);
        });
        running(&bench)
    })?;
    node.kill()?;
    running(&bench)?.stop()
}

#[test]
fn a_missing_or_too_old_etcd_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let original = bench.text()?;
    // As on a machine without etcd: it is hidden from this one process.
    let hidden = "for d in $(echo $PATH | tr : ' ') /usr/local/bin /usr/bin /usr/local/sbin /usr/sbin \
                  /bin; do [ -e $d/etcd ] && mount --bind /dev/null $d/etcd; done; exec \"$0\" \"$@\"";
    let mut without = Command::new("unshare");
    without.args(["--mount", "sh", "-c", hidden]).arg(binary("musterd")?).args(bench.arguments());
    bench.refused_with(&mut without, &["no etcd on PATH", "etcd-server"])?;

    let nowhere = bench.path("nowhere").display().to_string();
    bench.change(|document| document["machine"]["etcd"] = json!({"binary": nowhere}))?;
    bench.refused_with(&mut bench.musterd()?, &[&nowhere, "machine.etcd.binary"])?;

    bench.write(&original)?;
    let old = etcd_that_says(&bench, "etcd Version: 3.3.25")?;
    bench.change(|document| document["machine"]["etcd"] = json!({"binary": old}))?;
    bench.refused_with(&mut bench.musterd()?, &["etcd 3.3.25", "3.4.0 or newer"])?;
    etcd_that_says(&bench, "hello")?;
    bench.refused_with(&mut bench.musterd()?, &["is it etcd?"])
}

#[test]
fn a_missing_snapshot_to_restore_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let missing = bench.path("snapshot.db").display().to_string();
    let mut command = bench.musterd()?;
    bench.refused_with(command.args(["--restore-etcd", &missing]), &[&missing, "No such file"])
}

#[test]
fn check_tells_whether_the_node_is_fit_and_changes_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let before = Tree::of(&bench.path(""))?;
    let said = within(bench.musterd()?.arg("--check"), Duration::from_secs(20))?;
    ensure!(said.code == Some(0) && said.err.contains("checks passed"), "{}{}", said.out, said.err);
    Tree::of(&bench.path(""))?.same_as(&before)?;
    ensure!(!bench.state().exists(), "a state directory was made");

    mode(&bench.config(), 0o644)?;
    bench.refused_with(bench.musterd()?.arg("--check"), &["0644"])
}

#[test]
fn the_state_directory_of_the_configuration_counts_unless_another_is_given() -> Result<()> {
    let bench = Bench::new()?;
    fresh_state(&bench)?;
    fs::write(bench.state().join("format"), "7\n")?;
    let state = bench.state().display().to_string();
    bench.change(|document| document["machine"]["stateDir"] = json!(state))?;
    let arguments = bench.arguments();
    let named = arguments.iter().position(|a| a == "--state-dir").context("no --state-dir")?;
    let mut by_config = Command::new(binary("musterd")?);
    by_config.args(&arguments[..named]).args(&arguments[named + 2..]).arg("--check");
    bench.refused_with(&mut by_config, &[&state, "format 7"])?;
    let mut overridden = by_config;
    overridden.arg("--state-dir").arg(bench.path("other"));
    within(&mut overridden, Duration::from_secs(20))?.success().map(drop)
}

fn running(bench: &Bench) -> Result<Running> {
    Running::start(bench, || bench.ctl(&["health"])?.success().map(drop))
}

/// The start of a second `musterd`, from another place than the running one's files.
fn elsewhere(bench: &Bench, address: &str) -> Result<Command> {
    let mut arguments = bench.arguments();
    if let Some(last) = arguments.last_mut() {
        address.clone_into(last);
    }
    let mut command = Command::new(binary("musterd")?);
    command.args(arguments);
    Ok(command)
}

#[test]
fn the_state_directory_of_a_member_serves_that_member_alone() -> Result<()> {
    let bench = Bench::new()?;
    let node = running(&bench)?;

    // The running node writes to its own files meanwhile: only the exit and the sentence are judged.
    let in_use = "another musterd is using it";
    for address in [bench.address().to_string(), Bench::new()?.address().to_string()] {
        let second = within(&mut elsewhere(&bench, &address)?, Duration::from_secs(20))?;
        let err = second.failure(78)?;
        ensure!(err.lines().count() == 1 && err.contains(in_use), "{err}");
    }
    let stranger = Bench::new()?;
    let mut same_ports = elsewhere(&stranger, &bench.address().to_string())?;
    let err = within(&mut same_ports, Duration::from_secs(20))?.failure(78)?;
    ensure!(err.contains("which etcd needs") && err.contains("in use"), "{err}");
    // A worker needs none of etcd's ports.
    stranger.change(|document| document["machine"]["type"] = json!("worker"))?;
    let same_port = elsewhere(&stranger, &bench.address().to_string())?;
    let waits = ["port in use; waiting", "UDP", "50000"];
    let waiting = Running::start_with(&stranger, same_port, || has_logged(&stranger, &waits))?;
    waiting.stop()?;
    let checked = within(bench.musterd()?.arg("--check"), Duration::from_secs(20))?;
    ensure!(checked.code == Some(0), "the check of a running node: {}", checked.err);
    ensure!(bench.ctl(&["health"])?.code == Some(0), "the running node was disturbed");
    node.stop()?;

    let original = bench.text()?;
    bench.change(|document| document["cluster"]["clusterName"] = json!("another"))?;
    bench.refused_with(
        &mut bench.musterd()?,
        &["belongs to the cluster \"bench\"", "\"another\""],
    )?;
    bench.write(&original)?;
    bench.change(|document| document["machine"]["type"] = json!("worker"))?;
    bench.refused_with(&mut bench.musterd()?, &["member as control-plane", "keeps its role"])?;
    bench.write(&original)?;

    let key = bench.state().join("identity.key");
    fs::rename(&key, bench.path("identity.key"))?;
    bench.refused_with(
        &mut bench.musterd()?,
        &["identity.key is missing", "musterctl node remove"],
    )?;
    fs::write(&key, "no key")?;
    mode(&key, 0o600)?;
    bench.refused_with(&mut bench.musterd()?, &["identity.key contains no valid key"])?;
    fs::rename(bench.path("identity.key"), &key)?;
    running(&bench)?.stop()
}
