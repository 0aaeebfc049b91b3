//! Every command of `musterctl` that the run executes.

use anyhow::{Result, ensure};
use muster_tests::secrets::commands as listed_commands;

use crate::calls::{CALLS, CREATE_TOKEN, every_call_has_a_row};

pub(super) const FORMATS: [&str; 3] = ["table", "json", "yaml"];

/// Every command that calls no cluster, with its allowed exit codes. `DIR` is the operator's directory,
/// `FORM` the output format.
const LOCAL: &[(&str, &[i32])] = &[
    ("init made-FORM --out DIR/made-FORM", &[0]),
    ("cluster create --control-planes 1 --workers 0 --name local-FORM --dir DIR/local-FORM", &[0]),
    ("cluster list", &[0]),
    ("cluster show local-FORM", &[0]),
    ("cluster stop local-FORM", &[0]),
    ("cluster start local-FORM", &[0]),
    (DESTROY, &[0]),
    ("context add DIR/made-FORM --name added-FORM", &[0]),
    ("context endpoints 10.0.0.1 --context added-FORM", &[0]),
    // The last one made or added is the current one.
    ("context use lab", &[0]),
    ("context list", &[0]),
    ("context show", &[0]),
    ("context remove added-FORM --yes", &[0]),
    ("completion bash", &[0]),
];

pub(super) const DESTROY: &str = "cluster destroy local-FORM";

/// Returns every command with its allowed exit codes, except [`CREATE_TOKEN`]: its output is the secret,
/// and [`Run::token`] removes it, in every format. `OUT` is a directory for files, `TOKEN` a token's id.
pub(super) fn commands() -> impl Iterator<Item = (&'static str, &'static [i32])> {
    let calls = CALLS.iter().filter(|row| row.line != CREATE_TOKEN);
    LOCAL.iter().copied().chain(calls.map(|row| (row.line, row.in_cluster)))
}

/// Fails when `musterctl` has a command without a row.
pub(super) fn every_command_has_a_row() -> Result<()> {
    every_call_has_a_row()?;
    let rows = || commands().map(|(line, _)| line).chain([CREATE_TOKEN]);
    let is_of = |line: &str, command: &str| format!("{line} ").starts_with(&format!("{command} "));
    let new =
        listed_commands()?.into_iter().find(|command| !rows().any(|line| is_of(line, command)));
    ensure!(new.is_none(), "`musterctl {}` has no row in CALLS or LOCAL", new.unwrap_or_default());
    Ok(())
}
