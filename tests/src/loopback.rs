//! Start of a single node without a lab: a configuration, a state directory and a loopback address,
//! for starts that must be refused before anything is sent.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::HEALTHY;
use crate::ctl::{CommandOutput, binary, output_of};
use crate::exclusive::MachineLock;
use crate::wait::until;

/// Timeout of a refusal on a busy machine; etcd is asked for its version on the way.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Last byte of the next address.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// Returns an address for this process and call only, in 127.128.0.0/9. An outgoing connection over
/// loopback comes from 127.0.0.1, so it takes none of its ports. Local clusters of `musterctl` use
/// 127.64.0.0/10.
fn own_address() -> Ipv4Addr {
    let [low, high, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, 128 | high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Machine that is about to start `musterd`.
#[derive(Debug)]
pub struct LoopbackMachine {
    files: tempfile::TempDir,
    address: Ipv4Addr,
    name: String,
    _shared: MachineLock,
}

impl LoopbackMachine {
    /// Makes a machine with the `node.yaml` of a cluster of one and without discovery.
    pub fn new() -> Result<Self> {
        let shared = MachineLock::shared()?;
        let files = tempfile::Builder::new().prefix("muster-loopback-").tempdir()?;
        let address = own_address();
        let machine = Self { files, address, name: "cp-1".to_owned(), _shared: shared };
        let out = machine.path("init");
        let mut init = Command::new(binary("musterctl")?);
        init.args(["init", "loopback", "--control-planes", "1", "--no-mdns"])
            .arg("--out")
            .arg(&out);
        init.arg("--endpoint").arg(address.to_string());
        init.env("MUSTER_CONFIG", machine.path("contexts"));
        output_of(&mut init)?.success()?;
        fs::rename(out.join("node.yaml"), machine.config())?;
        Ok(machine)
    }

    /// Returns the machine with another node name.
    #[must_use]
    pub fn with_name(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Path in the machine's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The log of the running node.
    pub fn log(&self) -> PathBuf {
        self.path("musterd.log")
    }

    pub fn config(&self) -> PathBuf {
        self.path("node.yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Returns the configuration as text.
    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(self.config())?)
    }

    /// Replaces the configuration.
    pub fn write(&self, text: &str) -> Result<()> {
        fs::write(self.config(), text)?;
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Changes the configuration. JSON is YAML.
    pub fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut document: Value = serde_saphyr::from_str(&self.text()?)?;
        change(&mut document);
        self.write(&serde_json::to_string_pretty(&document)?)
    }

    /// Returns the command that starts this machine's node.
    pub fn musterd(&self) -> Result<Command> {
        let mut command = Command::new(binary("musterd")?);
        command.args(self.arguments());
        Ok(command)
    }

    /// Arguments of `musterd`.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let (config, state) = (path(self.config()), path(self.state()));
        let address = self.address.to_string();
        let name = &self.name;
        ["--config", &config, "--state-dir", &state, "--name", name, "--address", &address]
            .map(str::to_owned)
            .into()
    }

    /// Runs `musterctl` as this cluster's operator.
    pub fn ctl(&self, args: &[&str]) -> Result<CommandOutput> {
        let mut command = Command::new(binary("musterctl")?);
        output_of(command.args(args).env("MUSTER_CONFIG", self.path("contexts")))
    }

    /// Runs `command`, which must soon exit with code 78 and leave every file unchanged. Returns
    /// its standard error.
    pub fn assert_refused(&self, command: &mut Command) -> Result<String> {
        let before = FileTree::of(self.files.path())?;
        let err = within(command, REFUSAL_TIMEOUT)?.failure(78)?;
        FileTree::of(self.files.path())?.assert_unchanged(&before)?;
        Ok(err)
    }

    /// Like [`Self::assert_refused`]; the error must be one line that contains all of `words`.
    pub fn assert_refused_with(&self, command: &mut Command, words: &[&str]) -> Result<()> {
        let err = self.assert_refused(command)?;
        let sentence = err.strip_prefix("musterd: ").and_then(|rest| rest.strip_suffix('\n'));
        let sentence = sentence.with_context(|| format!("not one error line: {err:?}"))?;
        ensure!(!sentence.contains('\n'), "more than one line: {sentence}");
        for word in words {
            ensure!(sentence.contains(word), "{word:?} is missing: {sentence}");
        }
        Ok(())
    }
}

/// Running node. Drop stops it.
#[derive(Debug)]
pub struct RunningNode(Child);

impl RunningNode {
    /// Starts the node of this machine and waits until `is_ready` succeeds.
    pub fn start(machine: &LoopbackMachine, is_ready: impl Fn() -> Result<()>) -> Result<Self> {
        Self::start_with(machine, machine.musterd()?, is_ready)
    }

    /// Same, with another command for the start.
    pub fn start_with(
        machine: &LoopbackMachine,
        mut command: Command,
        is_ready: impl Fn() -> Result<()>,
    ) -> Result<Self> {
        let path = machine.log();
        let log = fs::File::create(&path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let node = Self(command.spawn()?);
        until("the node to be ready", HEALTHY, || is_ready().map_err(|e| format!("{e:#}")))
            .with_context(|| fs::read_to_string(&path).unwrap_or_default())?;
        Ok(node)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills this process alone, like a power cut.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Sends `SIGTERM` and waits for a successful exit.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        ensure!(status.success(), "the exit status is {status}");
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM)?;
        until("musterd to stop", HEALTHY, || match self.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        // Gracefully, so that its etcd ends too.
        if self.end().is_err() {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// Runs a command and kills it if it does not end within `limit`.
pub fn within(command: &mut Command, limit: Duration) -> Result<CommandOutput> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > limit {
            child.kill()?;
            let output = CommandOutput::of(&child.wait_with_output()?);
            bail!("{command:?} did not end within {limit:?}: {}{}", output.out, output.err);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(CommandOutput::of(&child.wait_with_output()?))
}

/// Everything of a directory tree that a program could have changed.
#[derive(Debug, PartialEq, Eq)]
pub struct FileTree(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: u32,
    modified: (i64, i64),
    content: Vec<u8>,
}

impl FileTree {
    pub fn of(root: &Path) -> Result<Self> {
        let mut tree = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                for entry in fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            }
            let content = if meta.is_file() { fs::read(&path)? } else { Vec::new() };
            let modified = (meta.mtime(), meta.mtime_nsec());
            tree.insert(path, Entry { mode: meta.mode(), owner: meta.uid(), modified, content });
        }
        Ok(Self(tree))
    }

    /// Fails with the paths that differ.
    pub fn assert_unchanged(&self, before: &Self) -> Result<()> {
        let paths = self.0.keys().chain(before.0.keys());
        let changed: Vec<_> =
            paths.filter(|path| self.0.get(*path) != before.0.get(*path)).collect();
        ensure!(changed.is_empty(), "changed on disk: {changed:?}");
        Ok(())
    }
}
