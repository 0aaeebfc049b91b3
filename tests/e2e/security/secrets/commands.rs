//! Every command of `musterctl` that the run executes.

use anyhow::{Result, ensure};
use muster_tests::secrets::commands;

pub(super) const FORMATS: [&str; 3] = ["table", "json", "yaml"];

/// Every command with its allowed exit codes. A command of `musterctl` without a row fails the
/// test. `TOKEN` is a token's id, `DIR` the operator's directory, `FORM` the output format.
pub(super) const COMMANDS: &[(&str, &[i32])] = &[
    ("init made-FORM --out DIR/made-FORM", &[0]),
    ("cluster create --control-planes 1 --workers 0 --name local-FORM --dir DIR/local-FORM", &[0]),
    ("cluster list", &[0]),
    ("cluster show local-FORM", &[0]),
    (DESTROY, &[0]),
    ("context add DIR/made-FORM --name added-FORM", &[0]),
    ("context endpoints 10.0.0.1 --context added-FORM", &[0]),
    // The last one made or added is the current one.
    ("context use lab", &[0]),
    ("context list", &[0]),
    ("context show", &[0]),
    ("context remove added-FORM", &[0]),
    ("completion bash", &[0]),
    ("version", &[0]),
    ("members", &[0]),
    ("status", &[0]),
    ("status -n cp-2", &[0]),
    ("health", &[0]),
    ("token list", &[0]),
    ("pki show", &[0]),
    ("audit", &[0]),
    ("etcd members", &[0]),
    ("etcd status", &[0]),
    ("etcd alarms", &[0]),
    ("etcd alarms --disarm", &[0]),
    ("etcd defrag -n cp-1", &[0]),
    ("etcd forfeit-leadership", &[0]),
    ("etcd snapshot DIR/snapshot-FORM", &[0]),
    ("etcd client-config --out DIR/client-FORM", &[0]),
    ("token revoke TOKEN", &[0, 1]),
    ("node remove cp-9", &[1]),
];

pub(super) const DESTROY: &str = "cluster destroy local-FORM";

/// Command whose output is the secret. [`Run::token`] removes it, in every format.
pub(super) const SHOWS_A_SECRET: &str = "token create";

/// Fails when `musterctl` has a command without a row.
pub(super) fn every_command_has_a_row() -> Result<()> {
    let rows = || COMMANDS.iter().map(|(line, _)| *line).chain([SHOWS_A_SECRET]);
    let is_of = |line: &str, command: &str| format!("{line} ").starts_with(&format!("{command} "));
    let new = commands()?.into_iter().find(|command| !rows().any(|line| is_of(line, command)));
    ensure!(new.is_none(), "`musterctl {}` has no row in COMMANDS", new.unwrap_or_default());
    Ok(())
}
