//! Machines before their birth: their ranks, their fail points, and their cluster ids, as they
//! report them and as their disks hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use muster_formation::birth::failpoint::FailPointHook;
use muster_tests::cluster::HEALTHY;
use muster_tests::ctl::{CommandOutput, binary};
use muster_tests::lab::Process;
use muster_tests::{Cluster, Lab, Plan, until};
use muster_types::ClusterId;
use musterd::prepare;
use musterd::state_dir::StateDir;
use serde_json::Value;

/// Timeout for a process to reach its fail point.
const FAIL_POINT_TIMEOUT: Duration = Duration::from_secs(30);

/// Machines that are about to found a cluster.
pub(crate) struct Founders {
    pub(crate) cluster: Cluster,
    /// Names ordered by node id: the first proposes, the first `expect` are founders, the others
    /// are spare.
    pub(crate) ranked: Vec<String>,
}

/// The process did not reach its fail point in time in this run.
#[derive(Debug)]
pub(crate) struct NotReached;

impl Founders {
    /// Like [`Cluster::plan`], with every node's identity made as its first start would make it.
    pub(crate) fn plan(lab: &Lab, plan: &Plan) -> Result<Self> {
        let cluster = Cluster::plan(lab, plan)?;
        let mut ids = BTreeMap::new();
        for name in cluster.names() {
            let state = StateDir::open(&cluster.node(&name).host.dir().join("state"))?;
            let (identity, _) = prepare::identity::open(&state, false)?;
            ids.insert(identity.node_id(), name);
        }
        Ok(Self { cluster, ranked: ids.into_values().collect() })
    }

    /// Returns all names except these.
    pub(crate) fn all_but(&self, names: &[&str]) -> Vec<String> {
        self.ranked.iter().filter(|name| !names.contains(&name.as_str())).cloned().collect()
    }

    /// Starts all, those with a fail point first. `setting` is `POINT` or `POINT:stop`.
    pub(crate) fn start_armed(&mut self, armed: &[&str], setting: &str) -> Result<()> {
        armed.iter().try_for_each(|name| self.arm(name, setting))?;
        self.all_but(armed).iter().try_for_each(|name| self.cluster.start(name))
    }

    /// Starts a node with a fail point.
    pub(crate) fn arm(&mut self, name: &str, setting: &str) -> Result<()> {
        let config = self.cluster.config.clone();
        let node = self.cluster.node_mut(name);
        let mut command = node.host.command(binary("musterd")?);
        command.env(FailPointHook::VARIABLE, setting).arg("--config").arg(config);
        command.arg("--state-dir").arg(node.host.dir().join("state"));
        node.process = Some(node.host.spawn(command, "musterd")?);
        Ok(())
    }

    /// Restarts those that their fail point has killed, without a fail point. Returns their number.
    pub(crate) fn restart_killed(&mut self, names: &[String]) -> Result<usize> {
        let mut dead = 0;
        for name in names {
            let node = self.cluster.node_mut(name);
            if node.process.as_mut().is_some_and(Process::is_running) {
                continue;
            }
            self.await_killed(name)?
                .map_err(|NotReached| anyhow!("{name} was killed and is running"))?;
            self.cluster.start(name)?;
            dead += 1;
        }
        Ok(dead)
    }

    /// Waits until the fail point has killed this node's process.
    pub(crate) fn await_killed(&mut self, name: &str) -> Result<Result<(), NotReached>> {
        let node = self.cluster.node_mut(name);
        let mut process = node.process.take().context("it was started")?;
        let Ok(status) = process.wait_exit(FAIL_POINT_TIMEOUT) else {
            node.process = Some(process);
            return Ok(Err(NotReached));
        };
        ensure!(status.signal() == Some(9), "{name} was not killed by its fail point: {status}");
        node.host.kill_all()?;
        Ok(Ok(()))
    }

    /// Waits until the fail point has paused this node's process.
    pub(crate) fn await_stopped(&self, name: &str) -> Result<Result<(), NotReached>> {
        let process = self.cluster.node(name).process.as_ref().context("it was started")?;
        let path = format!("/proc/{}/stat", process.pid());
        let seen = until("the process to be stopped", FAIL_POINT_TIMEOUT, || {
            let stat = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            // After the name in brackets, which may hold anything.
            let is_stopped = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
            if is_stopped { Ok(()) } else { Err(stat) }
        });
        Ok(seen.map_err(|_| NotReached))
    }

    /// Returns the cluster id on each node's disk, running or not. Fails if there are two different
    /// ones.
    pub(crate) fn cluster_ids_on_disk(&self) -> Result<BTreeMap<String, ClusterId>> {
        let found = self.cluster.cluster_ids_on_disk()?;
        let all: BTreeSet<_> = found.values().flatten().collect();
        ensure!(all.len() < 2, "two clusters for one token: {found:?}");
        let one = |(name, clusters): (_, BTreeSet<_>)| Some((name, clusters.into_iter().next()?));
        Ok(found.into_iter().filter_map(one).collect())
    }

    /// Waits until all of these belong to one cluster, by their disks and by their status.
    pub(crate) fn await_one_cluster(&self, names: &[String]) -> Result<ClusterId> {
        let all = format!("{names:?} to belong to one cluster");
        until(&all, HEALTHY, || {
            let clusters = self.cluster_ids_on_disk();
            // Two clusters never become one again; the next call returns the error.
            let Ok(clusters) = clusters else { return Ok(()) };
            if names.iter().all(|name| clusters.contains_key(name)) {
                Ok(())
            } else {
                Err(format!("{clusters:?}; {}", self.waiting_for_all(names)))
            }
        })?;
        let clusters = self.cluster_ids_on_disk()?;
        let cluster = *clusters.values().next().context("no node belongs to a cluster")?;
        for name in names {
            until(&format!("{name} to name its cluster"), HEALTHY, || {
                let output = self.cluster.ctl_at(name, &["status", "-o", "json"]);
                match output.and_then(CommandOutput::json) {
                    Ok(status) if status["clusterId"] == cluster.to_string().as_str() => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })?;
        }
        Ok(cluster)
    }

    /// Waits until every machine is a member and a voter of one cluster, and every etcd is healthy.
    pub(crate) fn all_healthy(&self) -> Result<()> {
        let count = self.ranked.len();
        self.await_one_cluster(&self.ranked)?;
        self.cluster.until_members("every machine a voter", |members| {
            let list = members["members"].as_array().cloned().unwrap_or_default();
            list.len() == count
                && list.iter().all(|m| m["raft"]["voter"] == true && m["state"] == "alive")
        })?;
        self.cluster.until_healthy()?;
        self.etcd_serves(count)?;
        self.cluster_ids_on_disk().map(|_| ())
    }

    /// Waits until a majority accepts a write, and so does etcd with this many healthy members.
    pub(crate) fn serves(&self, etcd: usize) -> Result<()> {
        until("a write to be taken", HEALTHY, || {
            let args = ["token", "create", "--role", "worker", "--uses", "1"];
            self.cluster.ctl(&args).and_then(CommandOutput::success).map_err(|e| format!("{e:#}"))
        })?;
        self.etcd_serves(etcd)
    }

    fn etcd_serves(&self, healthy: usize) -> Result<()> {
        until(&format!("{healthy} healthy members of etcd"), HEALTHY, || {
            self.etcd_healthy().map_err(|error| format!("{error:#}")).and_then(|found| {
                if found >= healthy { Ok(()) } else { Err(format!("{found} are healthy")) }
            })
        })?;
        until("a write to etcd", HEALTHY, || {
            let put = self.cluster.etcdctl(&["put", "after", "the birth"]);
            put.and_then(CommandOutput::success).map_err(|error| format!("{error:#}"))
        })?;
        Ok(())
    }

    /// Returns the number of members that `etcdctl` reports as healthy. It fails when one is not,
    /// and still prints all.
    fn etcd_healthy(&self) -> Result<usize> {
        let output = self.cluster.etcdctl(&["endpoint", "health", "--cluster", "-w", "json"])?;
        let list = output.out.lines().find(|line| line.starts_with('[')).map(serde_json::from_str);
        let Some(Ok(Value::Array(list))) = list else { bail!("{}{}", output.out, output.err) };
        Ok(list.iter().filter(|member| member["health"] == true).count())
    }

    /// Returns what each of these nodes waits for.
    pub(crate) fn waiting_for_all(&self, names: &[String]) -> String {
        let word = |name: &String| {
            let output = self.cluster.ctl_at(name, &["status", "-o", "json"]);
            let status = output.map(|output| serde_json::from_str::<Value>(&output.out));
            let Ok(Ok(status)) = status else { return format!("{name}: no answer") };
            format!("{name}: {}", status["nodes"][0]["waitingFor"].as_str().unwrap_or("nothing"))
        };
        names.iter().map(word).collect::<Vec<_>>().join("; ")
    }

    /// Waits until each of these waits for something that contains these words.
    pub(crate) fn await_waiting_for(&self, names: &[String], words: &str) -> Result<()> {
        for name in names {
            until(&format!("{name} to wait for {words:?}"), HEALTHY, || {
                let waiting_for_all = self.waiting_for_all(std::slice::from_ref(name));
                if waiting_for_all.contains(words) { Ok(()) } else { Err(waiting_for_all) }
            })?;
        }
        Ok(())
    }
}
