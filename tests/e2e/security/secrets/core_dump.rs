//! A crash of `musterd`: no core, and no access to its memory.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{binary, output_of};
use muster_tests::loopback::LoopbackMachine;
use muster_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Returns a command without the right to trace others, run by the same user.
fn without_ptrace(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]).arg(program.as_ref());
    command
}

fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn a_crash_of_musterd_writes_no_core_and_no_other_process_reads_its_memory() -> Result<()> {
    let machine = LoopbackMachine::new()?;
    machine.change(|document| document["cluster"]["expect"] = Value::from(3))?;
    let log = fs::File::create(machine.path("musterd.log"))?;
    let mut command = without_ptrace(binary("musterd")?);
    command.args(machine.arguments()).current_dir(machine.path(""));
    let mut musterd = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut sleep = without_ptrace("sleep").arg("600").spawn()?;

    let readable = |pid: u32| -> Result<bool> {
        // The kernel makes the same check as for its memory: may the reader trace it (proc(5))?
        let mut readlink = without_ptrace("readlink");
        Ok(output_of(readlink.arg(format!("/proc/{pid}/exe")))?.code == Some(0))
    };
    // Once the lock exists, `main` is past its first lines.
    let lock = machine.state().join("lock");
    let looked =
        until("musterd to start", HEALTHY, || lock.exists().then_some(()).ok_or("no lock"))
            .and_then(|()| Ok((readable(musterd.id())?, readable(sleep.id())?)));
    let limits = fs::read_to_string(format!("/proc/{}/limits", musterd.id()));
    // Not SEGV, which Rust's handler treats as a possible stack overflow.
    send_signal(musterd.id(), Signal::ABORT)?;
    let status = musterd.wait()?;
    sleep.kill()?;
    sleep.wait()?;

    let (musterd, other) = looked?;
    ensure!(other, "an ordinary process of the same user is not readable: nothing is proved");
    ensure!(!musterd, "another process of the same user can read the memory of musterd");
    let limits = limits?;
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = cores.context("no limit")?.split_whitespace().collect();
    ensure!(words[4..6] == ["0", "0"], "children may dump core: {words:?}");
    ensure!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
    Ok(())
}
