//! Starts of a member whose configuration or machine has changed, and of a machine that is not ready
//! yet.

use std::fs;

use anyhow::{Result, ensure};
use muster_tests::loopback::{LoopbackMachine, RunningNode};
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
