//! Crate layers: what Cargo says that a crate links, and which crates name another in their
//! manifest. It reads the lock file's graph and builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A crate of the workspace.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub folder: PathBuf,
    /// Root files of the library and the binaries.
    pub roots: Vec<PathBuf>,
    /// Crates named as normal dependencies.
    pub dependencies: BTreeSet<String>,
}

/// Runs Cargo in the workspace and returns its output.
fn cargo(arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).args(["--locked", "--offline"]).current_dir(crate::workspace());
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The crates of the workspace, by name.
pub fn packages() -> Result<BTreeMap<String, Package>> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = list(&metadata["packages"]).iter().map(|value| {
        let package = package(value)?;
        Ok((package.name.clone(), package))
    });
    packages.collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn package(value: &Value) -> Result<Package> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let is_root =
        |target: &&Value| list(&target["kind"]).iter().any(|kind| kind == "lib" || kind == "bin");
    let roots = list(&value["targets"]).iter().filter(is_root);
    let normal = list(&value["dependencies"]).iter().filter(|one| one["kind"].is_null());
    Ok(Package {
        name: text(&value["name"])?,
        folder: Path::new(&text(&value["manifest_path"])?).parent().context("no folder")?.into(),
        roots: roots.map(|one| text(&one["src_path"]).map(Into::into)).collect::<Result<_>>()?,
        dependencies: normal.map(|one| text(&one["name"])).collect::<Result<_>>()?,
    })
}

/// Names of all crates that `package` links on Linux, itself included. Procedural macros run in the
/// compiler and are not linked.
pub fn linked(package: &str) -> Result<BTreeSet<String>> {
    let edges = ["--edges", "normal,no-proc-macro", "--target", "x86_64-unknown-linux-gnu"];
    let form = ["--prefix", "none", "--format", "{p}"];
    let tree = cargo(&[&["tree", "--package", package], &edges[..], &form].concat())?;
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}
