//! Disks that fill up, turn read-only or hang under a node, and an etcd that hangs or has no space.
//! The node reports it and stops serving, the others continue, and it comes back by the documented
//! steps (docs/guide/operations.md, "What to do when").

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_tests::attack::stolen_state::{run_attacker, steal_identity};
use muster_tests::cluster::HEALTHY;
use muster_tests::{Cluster, Plan, scenario, until};
use serde_json::Value;

/// Timeout of slow steps on a loaded machine.
const TIMEOUT: Duration = Duration::from_mins(3);

/// Size of a disk in MiB: enough for musterd and for the log that etcd preallocates.
const DISK: u64 = 256;

fn leader(cluster: &Cluster) -> Result<String> {
    until("a leader", HEALTHY, || {
        let members = cluster.members().map_err(|e| format!("{e:#}"))?;
        members["leader"].as_str().map(str::to_owned).ok_or_else(|| members.to_string())
    })
}

fn another(cluster: &Cluster, than: &str) -> String {
    cluster.names().into_iter().find(|name| name != than).expect("there are three")
}

/// Makes one acknowledged write through any node.
fn write(cluster: &Cluster, description: &str) -> Result<()> {
    let args = ["token", "create", "--role", "worker", "--description", description];
    cluster.ctl(&args)?.success().map(|_| ())
}

/// Writes until `victim` has exited. Returns its exit code and the acknowledged writes.
fn write_until_it_ends(
    cluster: &mut Cluster,
    victim: &str,
    prefix: &str,
) -> Result<(Option<i32>, Vec<String>)> {
    let mut written = Vec::new();
    let ended = until(&format!("{victim} to end"), TIMEOUT, || {
        let process = cluster.node_mut(victim).process.as_mut().ok_or("it was never started")?;
        if !process.is_running() {
            return Ok(());
        }
        let description = format!("{prefix}-{}", written.len());
        // A write may fail while the leader stops. Then it was not acknowledged.
        if write(cluster, &description).is_ok() {
            written.push(description);
        }
        Err("still running")
    });
    ended?;
    let mut process = cluster.node_mut(victim).process.take().context("a process")?;
    Ok((process.wait_exit(TIMEOUT)?.code(), written))
}

/// Returns the log of `node`.
fn log(cluster: &Cluster, node: &str) -> Result<String> {
    Ok(std::fs::read_to_string(cluster.node(node).host.dir().join("musterd.log"))?)
}

/// Returns the tokens, as `node` alone knows them.
fn descriptions(cluster: &Cluster, node: &str) -> Result<String> {
    cluster.ctl_at(node, &["token", "list", "-o", "json"])?.success()
}

fn status_of(cluster: &Cluster, node: &str) -> Result<Value> {
    let status = cluster.ctl(&["status", "-o", "json"])?.json()?;
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|n| n["name"] == node).with_context(|| format!("no {node}: {status}"))
}

fn three_nodes_with_disks(
    lab: &muster_tests::Lab,
) -> Result<(Cluster, Vec<muster_tests::lab::Disk>)> {
    let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
    let mut disks = Vec::new();
    for name in cluster.names() {
        let host = &mut cluster.node_mut(&name).host;
        let state = host.dir().join("state");
        disks.push(host.disk(&state, DISK)?);
    }
    cluster.start_all()?;
    cluster.until_healthy()?;
    Ok((cluster, disks))
}

#[test]
fn a_leader_whose_disk_is_full_stops_and_returns_once_there_is_space() {
    scenario("disk-full", |lab| {
        let (mut cluster, disks) = three_nodes_with_disks(lab)?;
        write(&cluster, "before")?;
        let victim = leader(&cluster)?;
        let disk = &disks[cluster.names().iter().position(|n| *n == victim).context("a node")?];
        disk.fill()?;
        let (code, written) = write_until_it_ends(&mut cluster, &victim, "during")?;
        let output = log(&cluster, &victim)?;
        ensure!(code == Some(74), "it ended with {code:?}");
        ensure!(
            output.contains("Raft store failed; this node has stopped serving")
                && output.contains("No space left on device"),
            "the log does not name the fault"
        );
        // The others continue, and nothing acknowledged is lost.
        write(&cluster, "without it")?;
        let other = another(&cluster, &victim);
        let known = descriptions(&cluster, &other)?;
        for token in written.iter().map(String::as_str).chain(["before", "without it"]) {
            ensure!(known.contains(token), "{token} was acknowledged and is lost");
        }
        // Started again, as by its service manager, on a disk that is still full.
        cluster.start(&victim)?;
        let (code, _) = write_until_it_ends(&mut cluster, &victim, "still full")?;
        ensure!(code == Some(74), "on a full disk it ended with {code:?}");
        disk.free_space()?;
        cluster.start(&victim)?;
        cluster.until_healthy()?;
        let known = descriptions(&cluster, &victim)?;
        for token in written.iter().map(String::as_str).chain(["before", "without it"]) {
            ensure!(known.contains(token), "{token} is lost on {victim}");
        }
        Ok(())
    });
}

#[test]
fn a_node_whose_disk_turns_read_only_stops_and_returns_after_a_check_of_the_disk() {
    scenario("disk-read-only", |lab| {
        let (mut cluster, disks) = three_nodes_with_disks(lab)?;
        let victim = another(&cluster, &leader(&cluster)?);
        let disk = &disks[cluster.names().iter().position(|n| *n == victim).context("a node")?];
        disk.turn_read_only()?;
        let (code, written) = write_until_it_ends(&mut cluster, &victim, "during")?;
        let output = log(&cluster, &victim)?;
        ensure!(code == Some(74), "it ended with {code:?}");
        ensure!(
            output.contains("Raft store failed; this node has stopped serving"),
            "the log does not name the fault"
        );
        write(&cluster, "without it")?;
        // Started again before the disk is repaired, it changes nothing and names the disk.
        cluster.start(&victim)?;
        let (code, _) = write_until_it_ends(&mut cluster, &victim, "still read-only")?;
        let output = log(&cluster, &victim)?;
        ensure!(code == Some(78), "on a read-only disk it ended with {code:?}");
        ensure!(output.contains("Read-only file system"), "the log does not name the disk");
        disk.check_and_mount()?;
        cluster.start(&victim)?;
        cluster.until_healthy()?;
        let known = descriptions(&cluster, &victim)?;
        for token in written.iter().map(String::as_str).chain(["without it"]) {
            ensure!(known.contains(token), "{token} is lost on {victim}");
        }
        Ok(())
    });
}

/// The leader cannot write, and gets no error. It may have sent entries that its own disk does not
/// have (it is ahead), and openraft waits for the disk silently. Raft messages from the others
/// would pile up in memory, so they are rejected. The attacker here poses as another node.
#[test]
fn a_leader_whose_disk_hangs_is_replaced_reports_it_and_continues_when_it_answers() {
    scenario("disk-hangs", |lab| {
        let (mut cluster, disks) = three_nodes_with_disks(lab)?;
        let victim = leader(&cluster)?;
        let other = another(&cluster, &victim);
        let disk = &disks[cluster.names().iter().position(|n| *n == victim).context("a node")?];
        let mut written = vec!["before".to_owned()];
        write(&cluster, "before")?;
        let frozen = disk.freeze()?;
        // Longer than a node takes to report itself as stuck. (A disk that hangs on a mark for
        // which nothing waits cannot be arranged here: daemon/src/raft/quorum.rs has that case.)
        std::thread::sleep(Duration::from_secs(3));
        until("the others to have a leader and to take a write", TIMEOUT, || {
            let description = format!("while it hung {}", written.len());
            write(&cluster, &description).map_err(|e| format!("{e:#}"))?;
            written.push(description);
            Ok::<_, String>(())
        })?;
        until("another leader, and the node's report of its disk", TIMEOUT, || {
            let members = cluster.ctl_at(&other, &["members", "-o", "json"]);
            let members = members
                .and_then(muster_tests::ctl::CommandOutput::json)
                .map_err(|e| format!("{e:#}"))?;
            let status = status_of(&cluster, &victim).map_err(|e| format!("{e:#}"))?;
            let waits = status["waitingFor"].as_str().unwrap_or_default();
            let is_led = members["leader"].as_str().is_some_and(|name| name != victim);
            let says = waits.contains("its disk: Raft has been stuck");
            if is_led && says { Ok(()) } else { Err(format!("{members} {status}")) }
        })?;
        // Called alone, it neither accepts a write nor shows possibly old data as current.
        for call in [&["token", "list"][..], &["token", "create", "--role", "worker"]] {
            let output = cluster.ctl_at(&victim, call)?;
            ensure!(
                output.code != Some(0) && output.err.contains("this node's Raft has been stuck"),
                "{call:?}: {output:?}"
            );
        }
        let attacker = lab.host("attacker")?;
        let stolen = steal_identity(&cluster, &other, &attacker)?.display().to_string();
        let to = format!("{}:{}", cluster.node(&victim).host.address(), muster_types::DEFAULT_PORT);
        until("the node to reject Raft messages", TIMEOUT, || {
            let output = run_attacker(&attacker, &["impersonate", &stolen, &to]);
            let output = output.map_err(|e| format!("{e:#}"))?;
            let refused = |call: &&str| {
                output.contains(&format!("{call}: Unavailable this node's Raft has been stuck"))
            };
            let calls = ["AppendEntries", "RequestVote", "InstallSnapshot", "Propose", "ReadIndex"];
            if calls.iter().all(refused) { Ok(()) } else { Err(output) }
        })?;
        write(&cluster, "still hanging")?;
        written.push("still hanging".to_owned());
        drop(frozen);
        cluster.until_healthy()?;
        ensure!(
            cluster
                .node_mut(&victim)
                .process
                .as_mut()
                .is_some_and(muster_tests::lab::Process::is_running),
            "{victim} ended"
        );
        for name in cluster.names() {
            let known = descriptions(&cluster, &name)?;
            for token in &written {
                ensure!(known.contains(token.as_str()), "{token} is lost on {name}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_hung_etcd_is_noticed_reported_and_replaced() {
    scenario("etcd-hung", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let pid = |cluster: &Cluster| -> Result<u64> {
            status_of(cluster, "cp-2")?["units"][0]["pid"].as_u64().context("no pid")
        };
        let hung = pid(&cluster)?;
        muster_tests::lab::run("kill", &["-STOP", &hung.to_string()])?;
        until("health to name the node and its etcd", TIMEOUT, || {
            let output = cluster.ctl(&["health"]).map_err(|e| format!("{e:#}"))?;
            let text = output.out + &output.err;
            let named = output.code != Some(0) && text.contains("cp-2 waits for etcd");
            if named { Ok(()) } else { Err(text) }
        })?;
        // Two of three continue meanwhile.
        cluster.etcdctl(&["put", "while", "it hung"])?.success()?;
        until("etcd with another process", TIMEOUT, || match pid(&cluster) {
            Ok(now) if now > 1 && now != hung => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        ensure!(
            log(&cluster, "cp-2")?.contains("unit killed: it neither answers nor exits"),
            "the log does not say why it was restarted"
        );
        cluster.until_healthy()?;
        let value = cluster.etcdctl(&["get", "while", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "it hung", "{value:?}");
        Ok(())
    });
}

#[test]
fn an_etcd_without_space_is_reported_and_continues_once_there_is_some() {
    scenario("etcd-disk-full", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        // From now on etcd has a separate disk.
        cluster.kill("cp-2")?;
        let host = &mut cluster.node_mut("cp-2").host;
        let (etcd, aside) = (host.dir().join("state/etcd"), host.dir().join("etcd"));
        std::fs::rename(&etcd, &aside)?;
        let disk = host.disk(&etcd, DISK)?;
        let mut copy = host.command("cp");
        copy.arg("-a").arg(aside.join(".")).arg(&etcd);
        muster_tests::ctl::output_of(&mut copy)?.success()?;
        cluster.start("cp-2")?;
        cluster.until_healthy()?;
        disk.fill()?;
        let big = "x".repeat(100_000); // an argument has 128 KiB at most
        let mut puts = 0;
        let output = until("health to report that etcd has no space", TIMEOUT, || {
            if puts < 100 {
                // The other two accept it.
                let put = cluster.etcdctl(&["put", &format!("big-{}", puts % 8), &big]);
                put.and_then(muster_tests::ctl::CommandOutput::success)
                    .map_err(|e| format!("{e:#}"))?;
                puts += 1;
            }
            let output = cluster.ctl(&["health"]).map_err(|e| format!("{e:#}"))?;
            let text = output.out + &output.err;
            // etcd reports it, or the writer of its certificates.
            let is_reported = text.to_lowercase().contains("no space left on device");
            if is_reported { Ok(text) } else { Err(text) }
        })?;
        let names_it =
            output.contains("cp-2 waits for etcd") || output.contains("cp-2 waits for its etcd");
        ensure!(names_it, "{output}");
        cluster.etcdctl(&["put", "without", "it"])?.success()?;
        write(&cluster, "musterd continues")?;
        disk.free_space()?;
        cluster.until_healthy()?;
        let value = cluster.etcdctl(&["get", "without", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "it", "{value:?}");
        Ok(())
    });
}

/// Raises the alarm of a full database for etcd's member on `cp-2`, as etcd itself does at 8 GiB.
/// Uses etcd's API, because `etcdctl` has no command for it.
fn raise_nospace(cluster: &Cluster) -> Result<()> {
    let members = cluster.ctl(&["etcd", "members", "-o", "json"])?.json()?;
    let members = members["members"].as_array().cloned().unwrap_or_default();
    let member = members.iter().find(|m| m["name"] == "cp-2").context("no member on cp-2")?;
    let id = member["id"].as_str().context("no id")?;
    let id = u64::from_str_radix(id, 16).with_context(|| format!("the id {id}"))?;
    let body = format!(r#"{{"action":"ACTIVATE","memberID":"{id}","alarm":"NOSPACE"}}"#);
    let request = format!(
        "POST /v3/maintenance/alarm HTTP/1.1\\r\\nHost: etcd\\r\\nConnection: close\\r\\n\
         Content-Length: {}\\r\\n\\r\\n{body}",
        body.len()
    );
    let address = cluster.node("cp-2").host.address();
    let line = format!(
        "{{ printf '{request}'; sleep 2; }} | timeout 20 openssl s_client -quiet \
         -connect {address}:2379 \
         -CAfile \"$ETCDCTL_CACERT\" -cert \"$ETCDCTL_CERT\" -key \"$ETCDCTL_KEY\""
    );
    let output = cluster.etcdctl_shell(&line)?;
    ensure!(
        output.out.contains("200 OK"),
        "etcd did not take the alarm: {}{}",
        output.out,
        output.err
    );
    Ok(())
}

#[test]
fn a_full_database_of_etcd_is_reported_and_the_documented_steps_clear_it() {
    scenario("etcd-nospace", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        cluster.etcdctl(&["put", "before", "yes"])?.success()?;
        raise_nospace(&cluster)?;
        let put = cluster.etcdctl(&["put", "more", "no"])?;
        ensure!(put.err.contains("database space exceeded"), "etcd takes writes: {put:?}");
        let value = cluster.etcdctl(&["get", "before", "--print-value-only"])?.success()?;
        ensure!(value.trim() == "yes", "reads fail: {value:?}");
        let health = cluster.ctl(&["health"])?;
        let text = format!("{}{}", health.out, health.err);
        ensure!(health.code != Some(0) && text.contains("cp-2: NOSPACE"), "not reported: {text}");
        for step in muster_tests::documented_steps::commands_under("etcd's database is full")? {
            let nodes = if step.contains("NAME") { cluster.names() } else { vec!["cp-1".into()] };
            for node in nodes {
                cluster.run_documented_step(&step, &node).with_context(|| step.clone())?;
            }
        }
        cluster.etcdctl(&["put", "after", "yes"])?.success()?;
        cluster.until_healthy()
    });
}
