//! The commands of `musterctl`, from its help.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::ctl::{binary, output_of};

/// Returns every command of `musterctl` without subcommands, as its help lists them.
pub fn commands() -> Result<BTreeSet<String>> {
    let (mut commands, mut left) = (BTreeSet::new(), vec![String::new()]);
    while let Some(command) = left.pop() {
        let mut help = Command::new(binary("musterctl")?);
        help.args(command.split_whitespace()).arg("--help");
        let below = listed(&output_of(&mut help)?.success()?);
        if below.is_empty() {
            commands.insert(command.trim().to_owned());
        }
        left.extend(below.iter().map(|name| format!("{command} {name}")));
    }
    ensure!(commands.len() > 20, "the help of musterctl was not understood: {commands:?}");
    Ok(commands)
}

/// Returns the commands in a help text, without `help` itself.
fn listed(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entry = |line: &str| {
        // A continued line is indented further.
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    };
    section.take_while(|line| !line.is_empty()).filter_map(entry).collect()
}
