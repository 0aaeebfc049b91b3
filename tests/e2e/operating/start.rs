//! Starts of a member whose configuration or machine has changed, and of a machine that is not ready
//! yet.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{CommandOutput, binary, output_of};
use muster_tests::loopback::within;
use muster_tests::loopback::{LoopbackMachine, RunningNode};
use muster_tests::until;
use serde_json::{Value, json};

fn running(machine: &LoopbackMachine) -> Result<RunningNode> {
    RunningNode::start(machine, || machine.ctl(&["health"])?.success().map(drop))
}

/// Members need no token, and operators remove it from the file. Such a member exited with code 78.
#[test]
fn a_member_starts_without_its_token_and_a_new_machine_does_not() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let tokens: [fn(&mut Value); 3] = [
        |machine| drop(machine.as_object_mut().map(|fields| fields.remove("token"))),
        |machine| machine["token"] = json!("REDACTED"),
        |machine| machine["token"] = json!(""),
    ];
    let original = machine.text()?;
    for change in tokens {
        machine.write(&original)?;
        machine.change(|document| change(&mut document["machine"]))?;
        let err = machine.assert_refused(&mut machine.musterd()?)?;
        ensure!(err.contains("machine.token") && err.contains("musterctl token create"), "{err}");
    }
    machine.write(&original)?;
    running(&machine)?.stop()?;
    let token = || -> Result<Value> {
        let file = fs::read_to_string(machine.state().join("membership.json"))?;
        Ok(serde_json::from_str::<Value>(&file)?["tokenId"].clone())
    };
    let id = token()?;
    ensure!(id.is_string(), "the token's id is not stored");
    for change in tokens {
        machine.write(&original)?;
        machine.change(|document| change(&mut document["machine"]))?;
        running(&machine)?.stop()?;
        let log = fs::read_to_string(machine.log())?;
        ensure!(log.contains("WARN") && log.contains("machine.token"), "no warning: {log}");
        ensure!(token()? == id, "the token's id is lost");
    }
    Ok(())
}

/// Starts in namespaces of its own, such as `--uts`, after running `prepare` there.
fn inside(namespaces: &[&str], prepare: &str, arguments: &[String]) -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")]);
    command.arg(binary("musterd")?).args(arguments);
    Ok(command)
}

/// Arguments of a node that takes its name from the system.
fn unnamed(machine: &LoopbackMachine) -> Result<Vec<String>> {
    let mut arguments = machine.arguments();
    let at = arguments.iter().position(|a| a == "--name").context("no --name")?;
    arguments.drain(at..at + 2);
    Ok(arguments)
}

fn has_logged(machine: &LoopbackMachine, words: &[&str]) -> Result<()> {
    let log = fs::read_to_string(machine.log())?;
    let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(found, "no line with {words:?}: {log}");
    Ok(())
}

fn becomes_healthy(machine: &LoopbackMachine) -> Result<String> {
    until("the node to be healthy", HEALTHY, || {
        machine.ctl(&["health"]).and_then(CommandOutput::success).map_err(|e| e.to_string())
    })
}

/// A fresh "localhost" joined and voted; a worker whose host name had changed was told to start with
/// an empty state directory.
#[test]
fn a_machine_without_a_name_waits_and_a_member_keeps_its_name() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    // The name decides the role: as "box" or "localhost" this node would be a worker.
    machine.change(|document| {
        document["machine"]["type"] = json!("worker");
        document["patches"] =
            json!([{"match": {"name": "cp-*"}, "patch": {"machine": {"type": "control-plane"}}}]);
    })?;
    let arguments = unnamed(&machine)?;
    let named = |name: &str| inside(&["--uts"], &format!("hostname {name}"), &arguments);
    let mut check = named("localhost.localdomain")?;
    let err = machine.assert_refused(check.arg("--check"))?;
    ensure!(err.contains("host name") && err.contains("--name"), "{err}");
    let waits = ["cannot start yet", "localhost"];
    let node =
        RunningNode::start_with(&machine, named("localhost")?, || has_logged(&machine, &waits))?;
    ensure!(!machine.state().exists(), "a state directory was made");
    let renamed = ["-t", &node.pid().to_string(), "-u", "hostname", "cp-1"].map(str::to_owned);
    output_of(Command::new("nsenter").args(renamed))?.success()?;
    becomes_healthy(&machine)?;
    node.stop()?;
    for other in ["localhost", "box"] {
        let node = RunningNode::start_with(&machine, named(other)?, || {
            machine.ctl(&["health"])?.success().map(drop)
        })?;
        has_logged(&machine, &["a member keeps its name", "cp-1", other])?;
        let members = machine.ctl(&["members"])?.success()?;
        ensure!(members.contains("cp-1") && !members.contains(other), "{members}");
        node.stop()?;
    }
    Ok(())
}

/// Slow DHCP, or a switch that boots last: the start was refused with code 78.
#[test]
fn a_machine_without_an_address_waits_for_one() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let mut arguments = machine.arguments();
    arguments.truncate(arguments.len() - 2);
    let offline = || inside(&["--net"], "ip link set lo up", &arguments);
    let words = ["an address that other nodes can reach", "--address"];
    machine.assert_refused_with(offline()?.arg("--check"), &words)?;
    let waits = ["cannot start yet", words[0]];
    let node = RunningNode::start_with(&machine, offline()?, || has_logged(&machine, &waits))?;
    let pid = node.pid().to_string();
    let veth = "link add eth0 type veth peer name eth1";
    for step in [veth, "addr add 192.0.2.1/24 dev eth0", "link set eth0 up", "link set eth1 up"] {
        let mut ip = Command::new("nsenter");
        ip.args(["-t", &pid, "-n", "ip"]).args(step.split(' '));
        output_of(&mut ip)?.success()?;
    }
    until("the node to start", HEALTHY, || {
        has_logged(&machine, &["this node belongs to a cluster"]).map_err(|e| e.to_string())
    })?;
    node.stop()
}

/// SIGTERM ends a node that waits.
#[test]
fn an_address_that_the_machine_does_not_have_yet_is_waited_for() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let mut arguments = machine.arguments();
    *arguments.last_mut().context("no arguments")? = "192.0.2.77".to_owned();
    let mut musterd = Command::new(binary("musterd")?);
    musterd.args(arguments);
    let waits = ["cannot start yet", "does not have the address 192.0.2.77"];
    RunningNode::start_with(&machine, musterd, || has_logged(&machine, &waits))?.stop()
}

/// A package manager removes the old program before it moves the new one there. A member exited with
/// code 78 meanwhile, and a text file that is busy did the same to a new machine.
#[test]
fn an_etcd_that_is_being_replaced_is_waited_for() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    let path = machine.path("etcd");
    fs::copy(etcd_on_path()?, &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    machine.change(|document| document["machine"]["etcd"] = json!({"binary": path}))?;

    let writer = fs::OpenOptions::new().append(true).open(&path)?;
    let mut check = machine.musterd()?;
    within(check.arg("--check"), Duration::from_secs(20))?.failure(78)?;
    let waits = ["cannot start yet", "etcd"];
    let node = RunningNode::start(&machine, || has_logged(&machine, &waits))?;
    drop(writer);
    becomes_healthy(&machine)?;
    node.stop()?;

    let away = machine.path("etcd.old");
    fs::rename(&path, &away)?;
    let node = RunningNode::start(&machine, || has_logged(&machine, &waits))?;
    fs::rename(&away, &path)?;
    becomes_healthy(&machine)?;
    node.stop()
}

fn etcd_on_path() -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").context("no PATH")?;
    let found =
        std::env::split_paths(&paths).map(|dir| dir.join("etcd")).find(|path| path.exists());
    found.context("no etcd on PATH")
}
