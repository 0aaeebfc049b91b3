//! Invalid input: `musterd` refuses to start with one error and exit code 78, and changes nothing
//! on disk.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{CommandOutput, binary};
use muster_tests::loopback::{FileTree, LoopbackMachine, RunningNode, within};
use muster_tests::until;
use muster_types::{DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT};
use serde_json::json;

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Makes a state directory as a first start does.
fn fresh_state(machine: &LoopbackMachine) -> Result<()> {
    fs::create_dir(machine.state())?;
    mode(&machine.state(), 0o700)?;
    Ok(fs::write(machine.state().join("format"), "1\n")?)
}

/// Makes a program that prints `version` like etcd, and nothing else.
fn etcd_with_version(machine: &LoopbackMachine, version: &str) -> Result<std::path::PathBuf> {
    let path = machine.path("etcd");
    fs::write(&path, format!("#!/bin/sh\necho '{version}'\n"))?;
    mode(&path, 0o755)?;
    Ok(path)
}

#[test]
fn every_problem_of_a_configuration_is_reported_at_once_with_its_path_and_line() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let text = machine.text()?;
    let token = text.lines().find(|line| line.trim_start().starts_with("token:"));
    let key = text.lines().find(|line| line.contains("publicKey:")).context("no key")?;
    let key = key.split("publicKey:").nth(1).context("no key")?.trim().trim_end_matches('}');
    machine.write(&format!(
        "machine:\n  type: contol-plane\n{}\n  network:\n    port: 70000\n    subnet: [10.0.0.0/8]\n\
         cluster:\n  clusterName: Bad Name\n  expct: 3\n  expect: 2\n  operators:\n    \
         - {{name: admin, role: admin, publicKey: {key}}}\n",
        token.context("no token")?,
    ))?;
    let err = machine.assert_refused(&mut machine.musterd()?)?;
    let file = machine.config().display().to_string();
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
        let found = err.lines().find(|line| line.starts_with(&begins));
        ensure!(found.is_some_and(|line| line.contains(what)), "{begins}…{what} is not in:\n{err}");
    }
    ensure!(err.lines().count() == 1 + expected.len(), "more lines than expected:\n{err}");
    ensure!(!machine.state().exists(), "a state directory was made");
    Ok(())
}

#[test]
fn a_token_with_a_typo_is_recognised_before_any_network_use() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let original = machine.text()?;
    machine.change(|document| {
        let token = &mut document["machine"]["token"];
        let mut typo = token.as_str().unwrap_or_default().to_owned();
        let last = typo.pop();
        typo.push(if last == Some('a') { 'b' } else { 'a' });
        *token = json!(typo);
    })?;
    // A separate directory: the trace is not the node's.
    let traces = tempfile::tempdir()?;
    let trace = traces.path().join("trace");
    let under_strace = |machine: &LoopbackMachine| -> Result<Command> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=%network", "-o"]).arg(&trace);
        command.arg(binary("musterd")?).args(machine.arguments());
        Ok(command)
    };
    let err = machine.assert_refused(&mut under_strace(&machine)?)?;
    ensure!(err.contains("machine.token") && err.contains("typo"), "{err}");
    let calls = fs::read_to_string(&trace)?;
    ensure!(!calls.contains("socket("), "it opened a socket:\n{calls}");
    ensure!(!machine.state().exists(), "a state directory was made");

    // The trace must show sockets where there are some.
    machine.write(&original)?;
    within(under_strace(&machine)?.arg("--check"), Duration::from_secs(20))?.success()?;
    let calls = fs::read_to_string(&trace)?;
    ensure!(calls.contains("socket("), "a trace of a whole check shows no socket:\n{calls}");
    Ok(())
}

#[test]
fn a_configuration_that_others_can_read_or_that_is_not_there_is_refused() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    for bits in [0o644, 0o640, 0o604] {
        mode(&machine.config(), bits)?;
        let mode_text = format!("{bits:04o}");
        machine.assert_refused_with(
            &mut machine.musterd()?,
            &["node.yaml", &mode_text, "chmod 0600"],
        )?;
    }
    fs::remove_file(machine.config())?;
    machine.assert_refused_with(&mut machine.musterd()?, &["node.yaml", "No such file"])
}

#[test]
fn an_unfit_state_directory_is_refused() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    fs::write(machine.state(), "a file")?;
    machine.assert_refused_with(&mut machine.musterd()?, &["state", "not a directory"])?;
    fs::remove_file(machine.state())?;

    fresh_state(&machine)?;
    fs::write(machine.state().join("format"), "2\n")?;
    let parts = ["newer Muster", "format 2", "start the version that wrote it"];
    machine.assert_refused_with(&mut machine.musterd()?, &parts)?;
    fs::write(machine.state().join("format"), "1\n")?;

    for bits in [0o755, 0o710, 0o701] {
        mode(&machine.state(), bits)?;
        let mode_text = format!("{bits:04o}");
        machine
            .assert_refused_with(&mut machine.musterd()?, &["state", &mode_text, "chmod 0700"])?;
    }
    mode(&machine.state(), 0o700)?;

    let me = rustix::process::geteuid().as_raw();
    ensure!(me == 0, "giving a directory away needs root");
    std::os::unix::fs::chown(machine.state(), Some(12_345), None)?;
    machine.assert_refused_with(
        &mut machine.musterd()?,
        &["belongs to user 12345", "runs as user 0"],
    )?;
    std::os::unix::fs::chown(machine.state(), Some(me), None)?;

    fs::remove_file(machine.state().join("format"))?;
    fs::write(machine.state().join("photo.jpg"), "")?;
    machine.assert_refused_with(
        &mut machine.musterd()?,
        &["photo.jpg", "not a state directory of Muster"],
    )
}

/// Fails unless the log has a line with all of `words`.
fn has_logged(machine: &LoopbackMachine, words: &[&str]) -> Result<()> {
    let log = fs::read_to_string(machine.log())?;
    let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(found, "no line with {words:?}: {log}");
    Ok(())
}

/// The port lies in the range of outgoing connections, so one of them may hold it for a moment.
/// musterd exited with 78, and systemd did not start it again.
#[test]
fn a_busy_port_is_waited_for_and_is_a_problem_for_the_check() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let address = (machine.address(), DEFAULT_PORT);
    let is_healthy =
        || machine.ctl(&["health"]).and_then(CommandOutput::success).map_err(|e| e.to_string());
    let becomes_healthy = |node: RunningNode| {
        until("the node to be healthy", HEALTHY, is_healthy)?;
        node.stop()
    };

    let udp = UdpSocket::bind(address)?;
    machine.assert_refused_with(machine.musterd()?.arg("--check"), &["UDP", "50000", "in use"])?;
    let waits = ["port in use; waiting", "UDP", "50000"];
    let node = RunningNode::start(&machine, || has_logged(&machine, &waits))?;
    drop(udp);
    becomes_healthy(node)?;

    let tcp = TcpListener::bind(address)?;
    machine.assert_refused_with(machine.musterd()?.arg("--check"), &["TCP", "50000", "in use"])?;
    let waits = ["port in use; waiting", "TCP", "50000"];
    let node = RunningNode::start(&machine, || has_logged(&machine, &waits))?;
    drop(tcp);
    becomes_healthy(node)
}

/// Like next to Debian's own etcd. The start was refused with code 78, and systemd did not try again.
#[test]
fn a_port_of_etcd_in_use_is_waited_for_and_is_a_problem_for_the_check() -> Result<()> {
    for port in [ETCD_CLIENT_PORT, ETCD_PEER_PORT] {
        let machine = LoopbackMachine::new()?;
        let other = TcpListener::bind((machine.address(), port))?;
        let words = [&format!("TCP {}:{port}", machine.address()), "etcd", "in use", "systemctl"];
        machine.assert_refused_with(machine.musterd()?.arg("--check"), &words)?;
        let waits = ["cannot start yet", words[0], "which etcd needs"];
        let node = RunningNode::start(&machine, || has_logged(&machine, &waits))?;
        ensure!(!machine.state().exists(), "a state directory was made");
        drop(other);
        until("the node to be healthy", HEALTHY, || {
            machine.ctl(&["health"]).and_then(CommandOutput::success).map_err(|e| e.to_string())
        })?;
        node.stop()?;
        // A member takes part in Raft without its etcd.
        let other = TcpListener::bind((machine.address(), port))?;
        let node = RunningNode::start(&machine, || {
            let health = machine.ctl(&["health"])?;
            let raft = health.out.lines().find(|line| line.contains("raft has a leader"));
            ensure!(raft.is_some_and(|line| line.contains("ok")), "{health:?}");
            has_logged(&machine, &["etcd cannot start yet", words[0]])
        })?;
        drop(other);
        node.stop()?;
    }
    // A worker runs no etcd.
    let machine = LoopbackMachine::new()?;
    machine.change(|document| document["machine"]["type"] = json!("worker"))?;
    let _other = TcpListener::bind((machine.address(), ETCD_CLIENT_PORT))?;
    within(machine.musterd()?.arg("--check"), Duration::from_secs(20))?.success().map(drop)
}

/// The etcd of a killed `musterd` is killed with it and may still hold its ports for a moment. That
/// must not refuse the next start, which would be the last one under systemd.
#[test]
fn a_start_right_after_a_kill_waits_for_the_end_of_the_old_etcd() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let node = running(&machine)?;
    node.kill()?;
    let ending = TcpListener::bind((machine.address(), ETCD_PEER_PORT));
    let ending = ending.or_else(|_| {
        until("the old etcd to end", HEALTHY, || {
            TcpListener::bind((machine.address(), ETCD_PEER_PORT))
        })
    })?;
    let node = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Longer than one probe of the ports, shorter than the timeout of the start.
            std::thread::sleep(Duration::from_secs(3));
            drop(ending);
        });
        running(&machine)
    })?;
    node.kill()?;
    running(&machine)?.stop()
}

#[test]
fn a_missing_or_too_old_etcd_is_refused() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let original = machine.text()?;
    // Like on a machine without etcd: it is hidden from this process only.
    let hidden = "for d in $(echo $PATH | tr : ' ') /usr/local/bin /usr/bin /usr/local/sbin /usr/sbin \
                  /bin; do [ -e $d/etcd ] && mount --bind /dev/null $d/etcd; done; exec \"$0\" \"$@\"";
    let mut without = Command::new("unshare");
    without.args(["--mount", "sh", "-c", hidden]).arg(binary("musterd")?).args(machine.arguments());
    machine.assert_refused_with(&mut without, &["no etcd on PATH", "etcd-server"])?;

    let nowhere = machine.path("nowhere").display().to_string();
    machine.change(|document| document["machine"]["etcd"] = json!({"binary": nowhere}))?;
    machine.assert_refused_with(&mut machine.musterd()?, &[&nowhere, "machine.etcd.binary"])?;

    machine.write(&original)?;
    let old = etcd_with_version(&machine, "etcd Version: 3.3.25")?;
    machine.change(|document| document["machine"]["etcd"] = json!({"binary": old}))?;
    machine.assert_refused_with(&mut machine.musterd()?, &["etcd 3.3.25", "3.4.0 or newer"])?;
    etcd_with_version(&machine, "hello")?;
    machine.assert_refused_with(&mut machine.musterd()?, &["is it etcd?"])
}

#[test]
fn a_missing_snapshot_to_restore_is_refused() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let missing = machine.path("snapshot.db").display().to_string();
    let mut command = machine.musterd()?;
    machine.assert_refused_with(
        command.args(["--restore-etcd", &missing]),
        &[&missing, "No such file"],
    )
}

#[test]
fn check_reports_whether_the_node_can_start_and_changes_nothing() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let before = FileTree::of(&machine.path(""))?;
    let output = within(machine.musterd()?.arg("--check"), Duration::from_secs(20))?;
    ensure!(
        output.code == Some(0) && output.err.contains("checks passed"),
        "{}{}",
        output.out,
        output.err
    );
    FileTree::of(&machine.path(""))?.assert_unchanged(&before)?;
    ensure!(!machine.state().exists(), "a state directory was made");

    mode(&machine.config(), 0o644)?;
    machine.assert_refused_with(machine.musterd()?.arg("--check"), &["0644"])
}

#[test]
fn the_state_directory_of_the_configuration_counts_unless_another_is_given() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    fresh_state(&machine)?;
    fs::write(machine.state().join("format"), "7\n")?;
    let state = machine.state().display().to_string();
    machine.change(|document| document["machine"]["stateDir"] = json!(state))?;
    let arguments = machine.arguments();
    let named = arguments.iter().position(|a| a == "--state-dir").context("no --state-dir")?;
    let mut by_config = Command::new(binary("musterd")?);
    by_config.args(&arguments[..named]).args(&arguments[named + 2..]).arg("--check");
    machine.assert_refused_with(&mut by_config, &[&state, "format 7"])?;
    let mut overridden = by_config;
    overridden.arg("--state-dir").arg(machine.path("other"));
    within(&mut overridden, Duration::from_secs(20))?.success().map(drop)
}

/// etcd runs in another directory, so it looked for its certificates elsewhere and never started.
#[test]
fn a_relative_state_directory_is_that_of_the_current_directory() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let mut musterd = Command::new(binary("musterd")?);
    musterd.current_dir(machine.path("")).args(["--config", "node.yaml", "--state-dir", "state"]);
    musterd.args(["--name", "cp-1", "--address", &machine.address().to_string()]);
    let healthy = || machine.ctl(&["health"])?.success().map(drop);
    RunningNode::start_with(&machine, musterd, healthy)?.stop()?;
    ensure!(machine.state().join("membership.json").exists(), "the state is elsewhere");
    Ok(())
}

fn running(machine: &LoopbackMachine) -> Result<RunningNode> {
    RunningNode::start(machine, || machine.ctl(&["health"])?.success().map(drop))
}

/// Returns the command of a second `musterd` on another address.
fn elsewhere(machine: &LoopbackMachine, address: &str) -> Result<Command> {
    let mut arguments = machine.arguments();
    if let Some(last) = arguments.last_mut() {
        address.clone_into(last);
    }
    let mut command = Command::new(binary("musterd")?);
    command.args(arguments);
    Ok(command)
}

#[test]
fn the_state_directory_of_a_member_serves_that_member_alone() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let node = running(&machine)?;

    // The running node writes to its own files meanwhile, so only exit code and error are checked.
    let in_use = "another musterd is using it";
    for address in [machine.address().to_string(), LoopbackMachine::new()?.address().to_string()] {
        let second = within(&mut elsewhere(&machine, &address)?, Duration::from_secs(20))?;
        let err = second.failure(78)?;
        ensure!(err.lines().count() == 1 && err.contains(in_use), "{err}");
    }
    let stranger = LoopbackMachine::new()?;
    let mut same_ports = elsewhere(&stranger, &machine.address().to_string())?;
    let err = within(same_ports.arg("--check"), Duration::from_secs(20))?.failure(78)?;
    ensure!(err.contains("50000") && err.contains("in use"), "{err}");
    // A worker needs none of etcd's ports.
    stranger.change(|document| document["machine"]["type"] = json!("worker"))?;
    let same_port = elsewhere(&stranger, &machine.address().to_string())?;
    let waits = ["port in use; waiting", "UDP", "50000"];
    let waiting = RunningNode::start_with(&stranger, same_port, || has_logged(&stranger, &waits))?;
    waiting.stop()?;
    let checked = within(machine.musterd()?.arg("--check"), Duration::from_secs(20))?;
    ensure!(checked.code == Some(0), "the check of a running node: {}", checked.err);
    ensure!(machine.ctl(&["health"])?.code == Some(0), "the running node was disturbed");
    node.stop()?;

    let original = machine.text()?;
    machine.change(|document| document["cluster"]["clusterName"] = json!("another"))?;
    machine.assert_refused_with(
        &mut machine.musterd()?,
        &["belongs to the cluster \"loopback\"", "\"another\""],
    )?;
    machine.write(&original)?;
    machine.change(|document| document["machine"]["type"] = json!("worker"))?;
    machine.assert_refused_with(
        &mut machine.musterd()?,
        &["member as control-plane", "keeps its role"],
    )?;
    machine.write(&original)?;

    let key = machine.state().join("identity.key");
    fs::rename(&key, machine.path("identity.key"))?;
    machine.assert_refused_with(
        &mut machine.musterd()?,
        &["identity.key is missing", "musterctl node remove"],
    )?;
    fs::write(&key, "no key")?;
    mode(&key, 0o600)?;
    machine
        .assert_refused_with(&mut machine.musterd()?, &["identity.key contains no valid key"])?;
    fs::rename(machine.path("identity.key"), &key)?;
    running(&machine)?.stop()
}
