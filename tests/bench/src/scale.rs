//! Gossip beyond what one machine can run for real: the simulation of `muster-discovery`'s gossip
//! core with its real parameters. `gossip-scale` is a program of its own and tells JSON; its figures
//! are simulated and marked so.

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
    let found = serde_json::from_str(&output.out).context("what gossip-scale tells")?;
    bench.report.others.insert("scale (simulated)", found);
    Ok(())
}
