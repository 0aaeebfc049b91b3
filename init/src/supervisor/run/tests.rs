use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

fn shell(script: &str, directory: &Path) -> ProcessSpec {
    let command = Command {
        program: PathBuf::from("/bin/sh"),
        arguments: ["-c", script].map(OsString::from).to_vec(),
        environment: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        directory: directory.to_owned(),
    };
    ProcessSpec { command, start_check: None }
}

struct Fixture {
    directory: tempfile::TempDir,
    handle: Supervisor,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = Policy {
            initial_backoff: Duration::from_millis(20),
            stop_timeout: Duration::from_millis(300),
            hang_timeout: Duration::from_millis(100),
            ..Policy::default()
        };
        let log = LogConfig::new(directory.path().join("log"));
        let (handle, task) = Supervisor::new("test", policy, log);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop.clone()));
        Self { directory, handle, stop, tasks }
    }

    async fn want(&self, script: &str) {
        self.handle.set_spec(shell(script, self.directory.path())).await.unwrap();
    }

    async fn until(&self, what: &str, is: impl FnMut(&ProcessStatus) -> bool) -> ProcessStatus {
        let mut status = self.handle.status();
        let found = timeout(TIMEOUT, status.wait_for(is)).await.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("waited for {what}: {:?}", *self.handle.status().borrow()))
    }
}

fn exists(pid: u32) -> bool {
    // A zombie still has a directory in /proc, but no executable.
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[tokio::test]
async fn a_process_that_ends_is_started_again_and_its_last_words_are_kept() {
    let fixture = Fixture::new();
    fixture.want("echo out of luck >&2; exit 3").await;
    let status = fixture.until("two restarts", |status| status.restarts >= 2).await;
    assert_eq!(status.last_exit, Some(Exit::Code(3)));
    assert_eq!(status.last_lines, ["out of luck"]);
    let log = fs::read_to_string(fixture.directory.path().join("log")).unwrap();
    assert!(log.lines().count() >= 2, "{log}");
}

#[tokio::test]
async fn stopping_is_orderly_and_ends_the_owner() {
    let mut fixture = Fixture::new();
    fixture.want("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done").await;
    fixture.until("running", |status| status.phase == ProcessPhase::Running).await;
    let log = fixture.directory.path().join("log");
    timeout(TIMEOUT, async {
        while !fs::read_to_string(&log).unwrap().contains("up") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the script is up");
    fixture.stop.cancel();
    timeout(TIMEOUT, fixture.tasks.join_next()).await.expect("the task ends").unwrap().unwrap();
    let status = fixture.handle.status().borrow().clone();
    assert_eq!((status.phase, status.last_exit), (ProcessPhase::Stopped, Some(Exit::Code(0))));
    assert_eq!(status.last_lines, ["up", "bye"]);
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed() {
    let fixture = Fixture::new();
    fixture.want("trap '' TERM; echo up; while :; do sleep 0.02; done").await;
    fixture.until("running", |status| status.phase == ProcessPhase::Running).await;
    let log = fixture.directory.path().join("log");
    timeout(TIMEOUT, async {
        while !fs::read_to_string(&log).unwrap().contains("up") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the script is up");
    timeout(TIMEOUT, fixture.handle.stop()).await.expect("it stops").unwrap();
    assert_eq!(fixture.handle.status().borrow().last_exit, Some(Exit::Signal(9)));
}

#[tokio::test]
async fn a_stopped_process_counts_as_hung_and_is_replaced() {
    let fixture = Fixture::new();
    fixture.want("exec sleep 1000").await;
    let first =
        fixture.until("running", |status| status.phase == ProcessPhase::Running).await.pid.unwrap();
    let pid = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    fixture.handle.report_probe(true).await.unwrap();
    let mut status = fixture.handle.status();
    timeout(TIMEOUT, async {
        let mut questions = tokio::time::interval(Duration::from_millis(20));
        while status.borrow_and_update().pid.is_none_or(|pid| pid == first) {
            questions.tick().await;
            fixture.handle.report_probe(false).await.unwrap();
        }
    })
    .await
    .expect("another process");
    assert!(!exists(first));
    assert_eq!(status.borrow().last_exit, Some(Exit::Signal(9)));
}

#[tokio::test]
async fn a_guard_is_asked_before_every_start_and_can_forbid_it() {
    let fixture = Fixture::new();
    let allowed = fixture.directory.path().join("allowed");
    fs::write(&allowed, "").unwrap();
    let mut spec = shell("rm allowed; exit 1", fixture.directory.path());
    let seen = allowed.clone();
    spec.start_check = Some(Arc::new(move || {
        if seen.exists() {
            Ok(())
        } else {
            Err(StartRefusal::DataLost("the data is gone".to_owned()))
        }
    }));
    fixture.handle.set_spec(spec.clone()).await.unwrap();
    let status = fixture.until("a refusal", |status| status.phase == ProcessPhase::Refused).await;
    assert_eq!(status.refusal, Some(StartRefusal::DataLost("the data is gone".to_owned())));
    assert_eq!(status.last_exit, Some(Exit::Code(1)));
    fs::write(&allowed, "").unwrap();
    fixture.handle.set_spec(spec).await.unwrap();
    fixture.until("another try", |status| status.phase != ProcessPhase::Refused).await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let fixture = Fixture::new();
    let mut spec = shell("", fixture.directory.path());
    spec.command.program = PathBuf::from("/nowhere/etcd");
    fixture.handle.set_spec(spec).await.unwrap();
    let status = fixture.until("a problem", |status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("/nowhere/etcd"));
    assert_eq!(status.phase, ProcessPhase::BackingOff);
}

#[tokio::test]
async fn the_environment_is_not_inherited() {
    let fixture = Fixture::new();
    fixture.want("exec env").await;
    let status = fixture.until("an exit", |status| status.last_exit.is_some()).await;
    let names: Vec<_> = status.last_lines.iter().filter_map(|line| line.split_once('=')).collect();
    assert!(
        names.iter().all(|(name, _)| ["PATH", "PWD", "_", "SHLVL"].contains(name)),
        "{names:?}"
    );
}

#[tokio::test]
async fn dropping_the_owner_kills_the_process() {
    let mut fixture = Fixture::new();
    fixture.want("exec sleep 1000").await;
    let pid = fixture.until("running", |status| status.pid.is_some()).await.pid.unwrap();
    fixture.tasks.abort_all();
    fixture.tasks.join_next().await;
    timeout(TIMEOUT, async {
        while exists(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the process is gone");
}

const PARENT: &str = "MUSTER_TEST_SUPERVISING_PARENT";

/// Runs this test again as a supervising parent process and kills that with SIGKILL.
#[test]
fn a_child_does_not_outlive_a_killed_parent() {
    if std::env::var_os(PARENT).is_some() {
        return supervise_until_killed();
    }
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("supervisor::run::tests::a_child_does_not_outlive_a_killed_parent")
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("child=")?.1.parse::<u32>().ok())
        .expect("the parent prints its child's pid");
    assert!(exists(pid));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let until = Instant::now() + TIMEOUT;
    while exists(pid) {
        assert!(Instant::now() < until, "the child {pid} outlives its parent");
        std::thread::yield_now();
    }
}

#[expect(clippy::print_stdout, reason = "reports the pid to the outer test")]
fn supervise_until_killed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new();
        fixture.want("exec sleep 1000").await;
        let status = fixture.until("running", |status| status.pid.is_some()).await;
        println!("\nchild={}", status.pid.unwrap());
        std::future::pending::<()>().await;
    });
}
