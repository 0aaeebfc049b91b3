//! Names of maximum length work everywhere.

use anyhow::{Result, ensure};
use muster_tests::loopback::{LoopbackMachine, RunningNode};
use serde_json::json;

/// With more than 57 bytes a node never got an etcd, and an operator no credentials for it: a
/// common name has at most 64 characters.
#[test]
fn a_node_and_an_operator_with_names_of_63_bytes_get_etcd_and_credentials_for_it() -> Result<()> {
    let machine = LoopbackMachine::new()?.with_name(&"n".repeat(63));
    let operator = "o".repeat(63);
    machine.change(|document| document["cluster"]["operators"][0]["name"] = json!(operator))?;
    let node = RunningNode::start(&machine, || machine.ctl(&["health"])?.success().map(drop))?;
    let out = machine.path("etcd-client").display().to_string();
    machine.ctl(&["etcd", "client-config", "--out", &out])?.success()?;
    let script = ". \"$0/etcdctl.env\"; exec etcdctl member list";
    let mut etcdctl = std::process::Command::new("sh");
    let output = muster_tests::ctl::output_of(etcdctl.args(["-c", script, &out]))?;
    ensure!(output.clone().success()?.contains(&"n".repeat(63)), "{output:?}");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-subject", "-in"]).arg(machine.path("etcd-client/client.crt"));
    let subject = muster_tests::ctl::output_of(&mut openssl)?.success()?;
    ensure!(subject.contains("muster:ooooo"), "{subject}");
    node.stop()
}
