//! `musterctl` as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Returns the path of a binary under test: in `$MUSTER_BIN`, or next to the test's own.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os("MUSTER_BIN") {
        PathBuf::from(dir)
    } else {
        let me = std::env::current_exe()?;
        me.parent()
            .and_then(Path::parent)
            .context("the test binary is in no target directory")?
            .into()
    };
    let path = dir.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    Ok(path)
}

/// Exit code and output of a finished command.
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

    /// Returns standard output if the command succeeded.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == Some(0), "exit code {:?}: {}{}", self.code, self.out, self.err);
        Ok(self.out)
    }

    /// Returns standard output as JSON if the command succeeded.
    pub fn json(self) -> Result<Value> {
        let out = self.success()?;
        serde_json::from_str(&out).with_context(|| format!("not JSON: {out}"))
    }

    /// Returns standard error if the command failed with `code`.
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

/// Runs `command` and waits for its end.
pub fn output_of(command: &mut Command) -> Result<CommandOutput> {
    Ok(CommandOutput::of(&command.output().with_context(|| format!("run {command:?}"))?))
}
