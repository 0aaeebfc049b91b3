//! A network of hosts in namespaces. Each host has its own, and so has the bridge between them: no
//! packet filter of the machine sees a frame, and nothing leaves the lab.

mod disk;
mod faults;
mod host;
mod inside;
mod mounts;
mod process;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
pub use disk::Disk;
pub use host::Host;
pub use inside::{enter_network, inside};
pub use process::Process;

use crate::exclusive::MachineLock;

/// Runs one scenario in a new lab. When it fails, the logs of every node are saved and the panic
/// names their directory.
pub fn scenario(name: &str, story: impl FnOnce(&Lab) -> Result<()>) {
    let _shared = MachineLock::shared().expect("a lock file can be made next to the test binary");
    run_scenario(name, story);
}

/// Like [`scenario`], while no other test that uses this crate's machines runs.
pub fn exclusive_scenario(name: &str, story: impl FnOnce(&Lab) -> Result<()>) {
    let _alone = MachineLock::exclusive().expect("a lock file can be made next to the test binary");
    run_scenario(name, story);
}

fn run_scenario(name: &str, story: impl FnOnce(&Lab) -> Result<()>) {
    let lab = Lab::new().expect("a lab can be made: root, iproute2 and nftables are needed");
    if let Err(error) = story(&lab) {
        let kept = lab.save_logs(name);
        panic!("{name}: {error:?}\nlogs of every node: {}", kept.display());
    }
}

/// Name prefix of every namespace of every lab. The process id of its owner follows.
const PREFIX: &str = "mlab";

/// From this number of hosts on, the kernel's neighbour limits must be raised. By default it keeps
/// 1,024 neighbours, of all namespaces together; beyond that frames are lost at random.
const MANY_HOSTS: u8 = 26;

/// Enough for 250 hosts that all know each other.
const NEIGHBOUR_LIMIT: u32 = 1 << 16;

/// Number of the next lab of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Isolated network. Drop removes everything that it made, also after a failure. The next
/// [`Lab::new`] removes what a killed run left behind.
#[derive(Debug)]
pub struct Lab {
    id: String,
    files: tempfile::TempDir,
    hosts: std::cell::Cell<u8>,
}

impl Lab {
    /// Makes a network without hosts. Needs root, iproute2 and nftables.
    pub fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the lab makes network namespaces and needs root"
        );
        remove_stale()?;
        let id = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let files = tempfile::Builder::new().prefix("muster-lab-").tempdir()?;
        let lab = Self { id, files, hosts: std::cell::Cell::new(0) };
        let lan = lab.lan();
        run("ip", &["netns", "add", &lan])?;
        run("ip", &["-n", &lan, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        run("ip", &["-n", &lan, "link", "set", "br0", "up"])?;
        lab.reset_faults()?;
        Ok(lab)
    }

    /// Makes a host with the next address of 10.77.0.0/24 and a directory.
    pub fn host(&self, name: &str) -> Result<Host> {
        let number = self.hosts.get() + 1;
        ensure!(number < 250, "a lab has at most 250 hosts");
        self.hosts.set(number);
        if number == MANY_HOSTS {
            raise_neighbour_limits()?;
        }
        Host::create(self, name, number)
    }

    /// Directory of all hosts' files.
    pub fn dir(&self) -> &Path {
        self.files.path()
    }

    fn lan(&self) -> String {
        format!("{}-lan", self.id)
    }

    /// Namespace of the bridge that all hosts are attached to, for a packet capture.
    pub fn bridge_namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(self.lan())
    }

    /// Copies every log to `$MUSTER_LAB_LOGS` (or the temporary directory) and returns the path.
    pub fn save_logs(&self, test: &str) -> PathBuf {
        let root =
            std::env::var_os("MUSTER_LAB_LOGS").map_or_else(std::env::temp_dir, PathBuf::from);
        let kept = root.join(format!("{}-{test}", self.id));
        copy_logs(self.files.path(), &kept);
        kept
    }
}

fn copy_logs(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            copy_logs(&path, &to.join(entry.file_name()));
        } else if path.extension().is_some_and(|e| e == "log") {
            std::fs::create_dir_all(to).ok();
            std::fs::copy(&path, to.join(entry.file_name())).ok();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in namespaces().unwrap_or_default() {
            if name.starts_with(&format!("{}-", self.id)) {
                remove(&name);
            }
        }
    }
}

/// Raises the kernel's limits until the next reboot. Never lowers them.
fn raise_neighbour_limits() -> Result<()> {
    for bound in ["gc_thresh3", "gc_thresh2", "gc_thresh1"] {
        let path = Path::new("/proc/sys/net/ipv4/neigh/default").join(bound);
        let failed = || format!("raise the neighbour limit in {}", path.display());
        let now: u32 = std::fs::read_to_string(&path)
            .with_context(failed)?
            .trim()
            .parse()
            .with_context(failed)?;
        if now < NEIGHBOUR_LIMIT {
            std::fs::write(&path, NEIGHBOUR_LIMIT.to_string()).with_context(failed)?;
        }
    }
    Ok(())
}

/// Removes the namespaces of owners that no longer run.
fn remove_stale() -> Result<()> {
    for name in namespaces()? {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(pid) = owner.and_then(|pid| pid.parse::<u32>().ok())
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            remove(&name);
        }
    }
    Ok(())
}

/// Kills what runs in a namespace, and removes it.
fn remove(name: &str) {
    if let Ok(pids) = run("ip", &["netns", "pids", name]) {
        for pid in pids.split_whitespace() {
            run("kill", &["-KILL", pid]).ok();
        }
    }
    run("ip", &["netns", "del", name]).ok();
}

fn namespaces() -> Result<Vec<String>> {
    let listed = run("ip", &["netns", "list"])?;
    Ok(listed.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

/// Runs a command to its end and returns its standard output. An error holds the command and its
/// standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run {program}: is it installed?"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
