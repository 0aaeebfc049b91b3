//! A user with their own home directory, who runs `musterctl`. Knows nothing of the replies.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use muster_pki::identity::Identity;
use serde_json::Value;
use tempfile::TempDir;

use super::Cluster;

/// A user with their own home directory.
pub(crate) struct User {
    home: TempDir,
}

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl CommandOutput {
    fn of(Output { status, stdout, stderr }: Output) -> Self {
        Self {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Returns standard error; fails unless the exit code is `code`.
    pub(crate) fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        &self.err
    }
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `musterctl` in this user's home and waits for it.
    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(&[], args)
    }

    /// Like [`Self::run`], with more environment variables.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)], args: &[&str]) -> CommandOutput {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        CommandOutput::of(command.output().unwrap())
    }

    /// Returns the command, to be changed before it is run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("musterctl"));
        command.args(args).current_dir(self.home.path()).env_clear();
        command.env("HOME", self.home.path()).env("MUSTER_CONFIG", self.path("config"));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs `musterctl` with `stdout` as its standard output.
    pub(crate) fn run_into(&self, stdout: impl Into<Stdio>, args: &[&str]) -> CommandOutput {
        let child = self.command(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        CommandOutput::of(child.wait_with_output().unwrap())
    }

    /// Writes a shell script that stands in for `musterd`, and returns its path.
    pub(crate) fn fake_musterd(&self, script: &str) -> String {
        let path = self.path("musterd");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `musterctl init demo` and returns a cluster that matches its files.
    pub(crate) fn init(&self) -> Arc<Cluster> {
        let output = self.run(&["init", "demo"]);
        assert_eq!(output.code, 0, "{output:?}");
        let read = |name: &str| std::fs::read_to_string(self.path("demo").join(name)).unwrap();
        let token = read("token").parse().unwrap();
        Cluster::new(&token, Identity::from_pem(&read("operator.key")).unwrap().public_key())
    }

    /// Like [`Self::run`], against these nodes.
    pub(crate) fn run_at(&self, nodes: &[SocketAddr], args: &[&str]) -> CommandOutput {
        let endpoints: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let mut all = args.to_vec();
        for endpoint in &endpoints {
            all.extend(["-e", endpoint.as_str()]);
        }
        self.run(&all)
    }
}

/// Mode of a file, without its type.
pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
