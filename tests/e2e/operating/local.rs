//! Local clusters of processes on this machine, and every way to reach one of their nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_tests::ctl::{CommandOutput, binary, output_of};
use muster_tests::exclusive::MachineLock;
use muster_tests::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// User with a separate home directory. Drop destroys the user's clusters.
struct User {
    home: tempfile::TempDir,
    _shared: MachineLock,
}

impl User {
    fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("muster-user-").tempdir()?;
        Ok(Self { home, _shared: MachineLock::shared()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn ctl(&self, args: &[&str]) -> Result<CommandOutput> {
        let mut command = Command::new(binary("musterctl")?);
        command.env("MUSTER_CONFIG", self.path("config")).env("XDG_STATE_HOME", self.path("state"));
        command.env("MUSTERD", binary("musterd")?).env_remove("MUSTER_CONTEXT");
        output_of(command.args(args).stdin(Stdio::null()))
    }

    fn ask(&self, args: &[&str]) -> Result<Value> {
        self.ctl(&[args, &["-o", "json"]].concat())?.json()
    }

    fn create(&self, name: &str, control_planes: &str, workers: &str) -> Result<Value> {
        let size = ["--control-planes", control_planes, "--workers", workers];
        self.ask(&[&["cluster", "create", "--name", name][..], &size].concat())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for cluster in &list(&self.ask(&["cluster", "list"]).unwrap_or_default(), "clusters") {
            self.ctl(&["cluster", "destroy", text(cluster, "name")]).ok();
        }
    }
}

fn list(answer: &Value, field: &str) -> Vec<Value> {
    answer[field].as_array().cloned().unwrap_or_default()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn names(answer: &Value, field: &str) -> Vec<String> {
    let mut names: Vec<_> =
        list(answer, field).iter().map(|n| text(n, "name").to_owned()).collect();
    names.sort();
    names
}

fn address(cluster: &Value, node: &str) -> Result<String> {
    let nodes = list(cluster, "nodes");
    let found = nodes.iter().find(|n| n["name"] == node).with_context(|| format!("no {node}"))?;
    Ok(text(found, "address").to_owned())
}

fn pid(cluster: &Value, node: &str) -> Result<i32> {
    let nodes = list(cluster, "nodes");
    let found = nodes.iter().find(|n| n["name"] == node).with_context(|| format!("no {node}"))?;
    Ok(found["pid"].as_i64().with_context(|| found.to_string())?.try_into()?)
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Kills processes of this test that are in no record any more.
struct KillOnDrop(Vec<i32>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        for pid in self.0.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// Process without relation to any cluster.
struct UnrelatedProcess(Child);

impl Drop for UnrelatedProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_cluster_of_one_is_created_once_and_destroyed_with_nothing_else() -> Result<()> {
    let user = User::new()?;
    let created = user.create("solo", "1", "1")?;
    ensure!(names(&created, "nodes") == ["cp-1", "worker-1"], "{created}");
    let directory = PathBuf::from(text(&created, "directory"));
    ensure!(directory.starts_with(user.path("state")), "{created}");
    let shown = user.ask(&["cluster", "show", "solo"])?;
    ensure!(list(&shown, "nodes").iter().all(|n| n["running"] == true), "{shown}");
    ensure!(user.ctl(&["health"])?.code == Some(0), "the created cluster is not healthy");

    let before = fs::read(directory.join("cluster.yaml"))?;
    let again = user.ctl(&["cluster", "create", "--name", "solo", "--workers", "0"])?;
    ensure!(again.code == Some(1) && again.err.contains("solo"), "{again:?}");
    let other = user.path("other").display().to_string();
    let again = user.ctl(&["cluster", "create", "--name", "solo", "--dir", &other])?;
    ensure!([Some(1), Some(78)].contains(&again.code) && again.err.contains("solo"), "{again:?}");
    ensure!(!Path::new(&other).exists(), "a refused create has left something");
    ensure!(fs::read(directory.join("cluster.yaml"))? == before, "the record was touched");
    ensure!(user.ctl(&["health"])?.code == Some(0), "a refused create has disturbed the cluster");

    ensure!(user.ask(&["cluster", "stop", "solo"])?["stopped"] == 2, "both nodes are stopped");
    let shown = user.ask(&["cluster", "show", "solo"])?;
    ensure!(list(&shown, "nodes").iter().all(|n| n["running"] == false), "{shown}");
    ensure!(user.ask(&["cluster", "start", "solo"])?["started"] == 2, "both nodes are started");
    ensure!(user.ask(&["cluster", "start", "solo"])?["started"] == 0, "they run");
    ensure!(user.ctl(&["health"])?.code == Some(0), "the restarted cluster is not healthy");
    let shown = user.ask(&["cluster", "show", "solo"])?;
    let before = fs::read(directory.join("cluster.yaml"))?;

    // Like after a reboot in which another process got the worker's process id.
    let worker = pid(&shown, "worker-1")?;
    let control = pid(&shown, "cp-1")?;
    let _worker_ends = KillOnDrop(vec![worker]);
    let mut unrelated = UnrelatedProcess(Command::new("sleep").arg("600").spawn()?);
    let record = String::from_utf8(before)?;
    let edited = record.replace(&format!("pid: {worker}"), &format!("pid: {}", unrelated.0.id()));
    ensure!(edited != record, "the record does not hold the process id: {record}");
    fs::write(directory.join("cluster.yaml"), edited)?;
    let shown = user.ask(&["cluster", "show", "solo"])?;
    let running: Vec<_> = list(&shown, "nodes").iter().map(|n| n["running"] == true).collect();
    ensure!(running == [true, false], "another process is taken for a node: {shown}");

    let photo = directory.join("photo.jpg");
    fs::write(&photo, "")?;
    let foreign = user.ctl(&["cluster", "destroy", "solo"])?;
    ensure!(foreign.code == Some(1) && foreign.err.contains("photo.jpg"), "{foreign:?}");
    ensure!(photo.exists() && directory.join("cp-1").exists(), "it has removed something");
    ensure!(runs(control), "a refused destroy has stopped a node");
    fs::remove_file(&photo)?;

    let in_use = user.ctl(&["cluster", "destroy", "solo"])?.failure(1)?;
    ensure!(in_use.contains(&format!("in use by process {worker},")), "{in_use}");
    ensure!(runs(worker), "destroy has ended a process that it had no record of");
    ensure!(runs(control), "a refused destroy has stopped a node");
    kill_process(Pid::from_raw(worker).context("no process id")?, Signal::TERM)?;
    until("the worker to end", Duration::from_secs(20), || {
        if runs(worker) { Err(worker) } else { Ok(()) }
    })?;

    let destroyed = user.ask(&["cluster", "destroy", "solo"])?;
    ensure!(destroyed["stopped"] == 1, "{destroyed}");
    ensure!(unrelated.0.try_wait()?.is_none(), "destroy has killed a process that is not a node");
    ensure!(!runs(control) && !directory.exists(), "something is left: {destroyed}");
    ensure!(names(&user.ask(&["context", "list"])?, "contexts").is_empty(), "a context is left");
    let gone = user.ctl(&["cluster", "destroy", "solo"])?;
    ensure!(gone.code == Some(1) && gone.err.contains("no local cluster solo"), "{gone:?}");
    Ok(())
}

#[test]
fn commands_work_through_any_node_of_the_cluster_that_is_meant() -> Result<()> {
    let user = User::new()?;
    let cluster = user.create("four", "3", "1")?;
    user.create("solo", "1", "0")?;
    the_context_says_which_cluster(&user)?;
    user.ctl(&["context", "use", "four"])?.success()?;
    through_a_follower(&user, &cluster)?;
    through_the_worker_alone(&user, &cluster)?;
    the_first_contact_through_the_worker(&user, &cluster)?;
    about_one_node(&user)?;

    let etcd = etcd_processes(&cluster)?;
    ensure!(etcd.len() == 3, "three nodes run {etcd:?}");
    user.ctl(&["cluster", "destroy", "four"])?.success()?;
    for pid in etcd {
        until("etcd to end with its node", Duration::from_secs(10), || {
            if runs(pid) { Err(pid) } else { Ok(()) }
        })?;
    }
    let left = user.ask(&["cluster", "list"])?;
    ensure!(names(&left, "clusters") == ["solo"], "{left}");
    ensure!(user.ctl(&["--context", "solo", "health"])?.code == Some(0), "solo was disturbed");
    Ok(())
}

/// Returns the etcd processes of this cluster.
fn etcd_processes(cluster: &Value) -> Result<Vec<i32>> {
    let directory = text(cluster, "directory");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = command.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        let is_etcd = words.first().is_some_and(|program| program.ends_with("/etcd"));
        if is_etcd && words.iter().any(|word| word.contains(directory)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn the_context_says_which_cluster(user: &User) -> Result<()> {
    let count = |args: &[&str]| -> Result<usize> {
        let mut command = Command::new(binary("musterctl")?);
        command
            .env("MUSTER_CONFIG", user.path("config"))
            .args(args)
            .args(["members", "-o", "json"]);
        command.env("MUSTER_CONTEXT", "four");
        Ok(list(&output_of(&mut command)?.json()?, "members").len())
    };
    let members = |args: &[&str]| Ok::<_, anyhow::Error>(list(&user.ask(args)?, "members").len());
    ensure!(members(&["members"])? == 1, "the last one created is not the current one");
    ensure!(members(&["members", "--context", "four"])? == 4, "--context has no effect");
    ensure!(count(&[])? == 4, "MUSTER_CONTEXT has no effect");
    ensure!(count(&["--context", "solo"])? == 1, "--context does not precede MUSTER_CONTEXT");
    let path = format!("{}/", user.path("config/contexts/four").display());
    ensure!(members(&["members", "--context", &path])? == 4, "a path is not accepted as context");
    let unknown = user.ctl(&["members", "--context", "five"])?.failure(78)?;
    ensure!(unknown.contains("five") && unknown.contains("four, solo"), "{unknown}");
    // The pinned trust anchor holds: no connection is made to another cluster's node.
    let four = user.ask(&["cluster", "show", "four"])?;
    let stranger = user.ctl(&["members", "--context", "solo", "-e", &address(&four, "cp-1")?])?;
    ensure!(stranger.code != Some(0) && stranger.out.is_empty(), "{stranger:?}");
    Ok(())
}

fn through_a_follower(user: &User, cluster: &Value) -> Result<()> {
    let leader = user.ask(&["members"])?["leader"].as_str().context("no leader")?.to_owned();
    for name in ["cp-1", "cp-2", "cp-3"].into_iter().filter(|name| *name != leader) {
        let endpoint = address(cluster, name)?;
        let at = ["-e", endpoint.as_str()];
        let create = ["token", "create", "--role", "worker", "--description", name];
        user.ask(&[&create[..], &at].concat())?;
        let tokens = user.ask(&[&["token", "list"][..], &at].concat())?.to_string();
        ensure!(tokens.contains(name), "a follower does not read what it wrote: {tokens}");
    }
    Ok(())
}

fn through_the_worker_alone(user: &User, cluster: &Value) -> Result<()> {
    let worker = address(cluster, "worker-1")?;
    let at = ["-e", worker.as_str()];
    for command in [
        &["members"][..],
        &["status"],
        &["health"],
        &["pki", "show"],
        &["audit"],
        &["token", "create", "--role", "worker", "--description", "relayed"],
        &["token", "list"],
        &["etcd", "members"],
        &["etcd", "status"],
        &["etcd", "alarms"],
        &["version"],
    ] {
        user.ask(&[command, &at].concat()).with_context(|| format!("{command:?} at the worker"))?;
    }
    let snapshot = user.path("relayed.snapshot").display().to_string();
    user.ask(&["etcd", "snapshot", &snapshot, "-e", &worker])?;
    Ok(())
}

/// Makes a context as `init` writes it: with the token and nothing pinned.
fn unpinned(user: &User, cluster: &Value) -> Result<PathBuf> {
    let context = user.path("unpinned");
    let known = user.path("config/contexts/four");
    fs::create_dir(&context)?;
    fs::set_permissions(&context, fs::Permissions::from_mode(0o700))?;
    fs::copy(known.join("operator.key"), context.join("operator.key"))?;
    let mut description: Value =
        serde_saphyr::from_str(&fs::read_to_string(known.join("context.yaml"))?)?;
    for field in ["clusterId", "learned", "local"] {
        description.as_object_mut().context("not a mapping")?.remove(field);
    }
    let document = fs::read_to_string(Path::new(text(cluster, "directory")).join("node.yaml"))?;
    let document: Value = serde_saphyr::from_str(&document)?;
    for (file, text) in [
        ("context.yaml", description.to_string()),
        ("token", text(&document["machine"], "token").to_owned()),
    ] {
        fs::write(context.join(file), text)?;
        fs::set_permissions(context.join(file), fs::Permissions::from_mode(0o600))?;
    }
    Ok(context)
}

fn the_first_contact_through_the_worker(user: &User, cluster: &Value) -> Result<()> {
    let context = unpinned(user, cluster)?;
    let path = context.display().to_string();
    let worker = address(cluster, "worker-1")?;
    let members = user.ask(&["members", "--context", &path, "-e", &worker])?;
    ensure!(list(&members, "members").len() == 4, "{members}");
    ensure!(context.join("authorities.pem").exists(), "nothing is pinned");
    ensure!(!context.join("token").exists(), "the token is kept though it is not needed any more");
    Ok(())
}

fn about_one_node(user: &User) -> Result<()> {
    let members = user.ask(&["members"])?;
    let of = list(&members, "members");
    let id = of.iter().find(|m| m["name"] == "cp-2").map(|m| text(m, "id")).context("no cp-2")?;
    for (node, name) in [("cp-1", "cp-1"), ("worker-1", "worker-1"), (id, "cp-2")] {
        let status = user.ask(&["status", "-n", node])?;
        ensure!(names(&status, "nodes") == [name], "{node}: {status}");
        ensure!(list(&status, "nodes").iter().all(|n| n["unreachable"].is_null()), "{status}");
    }
    let unknown = user.ctl(&["status", "-n", "cp-9"])?.failure(1)?;
    ensure!(unknown.contains("cp-9"), "{unknown}");
    let file = user.path("worker.snapshot").display().to_string();
    for call in [&["defrag"][..], &["snapshot", &file], &["forfeit-leadership"]] {
        let worker = user.ctl(&[&["etcd"], call, &["-n", "worker-1"]].concat())?.failure(1)?;
        ensure!(worker.contains("says: worker-1 is a worker and runs no etcd"), "{worker}");
    }
    Ok(())
}
