//! For tests: runs the attacker on a host of the lab, with a copy of a node's identity.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::ctl::{CommandOutput, binary, output_of};
use crate::{Cluster, Host, until};

/// Files that are a node's identity.
const IDENTITY: [&str; 2] = ["identity.key", "membership.json"];

/// Timeout for a node's certificate to be on disk.
const SOON: Duration = Duration::from_mins(1);

/// Runs the attacker on a host to its end and returns its output.
pub fn run_attacker(from: &Host, words: &[&str]) -> Result<String> {
    let mut command = from.command(binary("attacker")?);
    output_of(command.args(words))?.success()
}

/// Copies key and certificate of a running node to the attacker's host. The node's disk, if it has
/// its own, is visible from its host only.
pub fn steal_identity(cluster: &Cluster, name: &str, attacker: &Host) -> Result<PathBuf> {
    let host = &cluster.node(name).host;
    let state = host.dir().join("state");
    until(&format!("{name} to have a certificate"), SOON, || {
        let chain = ["-q", "\"chain\":\\[\""];
        let membership = state.join("membership.json");
        let found = output_of(host.command("grep").args(chain).arg(membership));
        found.and_then(CommandOutput::success).map_err(|e| format!("{e:#}"))
    })?;
    let stolen = attacker.dir().join("stolen");
    std::fs::create_dir_all(&stolen)?;
    let files = IDENTITY.map(|file| state.join(file));
    output_of(host.command("cp").args(files).arg(&stolen))?.success()?;
    Ok(stolen)
}

/// Copies key and certificate from a state directory to a directory below `to`.
pub fn copy_identity(state: &Path, to: &Path) -> Result<PathBuf> {
    let stolen = to.join("stolen");
    std::fs::create_dir_all(&stolen)?;
    for file in IDENTITY {
        std::fs::copy(state.join(file), stolen.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(stolen)
}
