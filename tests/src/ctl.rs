//! `musterctl` as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where the binaries under test are: `$MUSTER_BIN`, or beside this test's own.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os("MUSTER_BIN") {
        PathBuf::from(dir)
    } else {
        let me = std::env::current_exe()?;
        me.parent().and_then(Path::parent).context("the test binary lies in no target")?.into()
    };
    let path = dir.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    Ok(path)
}

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, if it succeeded.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == Some(0), "exit code {:?}: {}{}", self.code, self.out, self.err);
        Ok(self.out)
    }

    /// What it printed, as JSON, if it succeeded.
    pub fn json(self) -> Result<Value> {
        let out = self.success()?;
        serde_json::from_str(&out).with_context(|| format!("not JSON: {out}"))
    }

    /// What it complained about, if it failed with `code`.
    pub fn failure(self, code: i32) -> Result<String> {
        ensure!(
            self.code == Some(code),
            "exit code {:?} instead of {code}: {}{}",
            self.code,
            self.out,
            self.err
        );
        Ok(self.err)
    }
}

/// Runs `command` to its end.
pub fn output_of(command: &mut Command) -> Result<CommandOutput> {
    Ok(CommandOutput::of(&command.output().with_context(|| format!("run {command:?}"))?))
}
