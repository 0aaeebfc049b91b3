//! Gossip with more members than one machine can run: the simulation of `muster-gossip`'s engine
//! with its real parameters. `gossip-scale` is a separate program that prints JSON. Its
//! measurements are simulated and labelled so.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Bench, say};
use muster_tests::ctl::{binary, output_of};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let program = binary("gossip-scale")?;
    say("scale: simulating");
    let members: &[&str] = if bench.quick { &["40"] } else { &["40", "200", "1000", "10000"] };
    let mut command = Command::new(program);
    command.arg("--json").args(members);
    let output = output_of(&mut command)?;
    ensure!(output.code == Some(0), "gossip-scale failed: {}", output.err);
    let found = serde_json::from_str(&output.out).context("parse the output of gossip-scale")?;
    bench.report.others.insert("scale (simulated)", found);
    Ok(())
}
