//! Local clusters with a script in place of `musterd`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::User;

/// Returns the nodes of the local cluster `demo` that run.
fn running(user: &User) -> usize {
    let output = user.run(&["cluster", "show", "-o", "json"]);
    let shown: Value = serde_json::from_str(&output.out).unwrap_or_default();
    let nodes = shown["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|node| node["running"] == true).count()
}

/// Runs `cluster create` until it has started both nodes, which never become healthy.
fn creating(user: &User) -> Child {
    let musterd = user.fake_musterd("exec sleep 300");
    let mut create = user.command(&["cluster", "create", "--dir", "c", "--control-planes", "1"]);
    create.env("MUSTERD", musterd).stdout(Stdio::piped()).stderr(Stdio::piped());
    let create = create.spawn().unwrap();
    let begun = Instant::now();
    while running(user) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "no nodes");
        std::thread::sleep(Duration::from_millis(50));
    }
    create
}

/// Regression: SIGTERM and SIGHUP left the nodes running, without a word.
#[test]
fn a_signal_during_create_stops_the_nodes() {
    for signal in ["INT", "TERM", "HUP"] {
        let user = User::new();
        let create = creating(&user);
        let (kill, pid) = (format!("-{signal}"), create.id().to_string());
        assert!(Command::new("kill").args([kill, pid]).status().unwrap().success());
        let output = create.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{signal}: {error}");
        assert!(error.contains(&format!("interrupted by SIG{signal}")), "{error}");
        assert!(error.contains("all started processes were stopped"), "{error}");
        assert_eq!(running(&user), 0, "{signal}");
        assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    }
}

#[test]
fn a_local_cluster_is_stopped_and_started_by_its_name() {
    let user = User::new();
    let create = creating(&user);
    let musterd = user.fake_musterd("exec sleep 300");
    let environment = [("MUSTERD", musterd.as_str())];
    let output = user.run_with(&environment, &["cluster", "create"]);
    let error = output.failure(1);
    assert!(error.contains("demo exists: all of its nodes run (cp-1, worker-1)"), "{error}");

    let output = user.run(&["cluster", "stop", "demo"]);
    assert_eq!((output.code, running(&user)), (0, 0), "{output:?}");
    assert!(output.err.starts_with("Stopped 2 processes of demo. `musterctl cluster start demo`"));
    assert!(user.path("c/cluster.yaml").exists());
    let ended = create.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(user.run(&["cluster", "stop", "-o", "json"]).json()["stopped"], 0);

    // It does not become healthy either, so its processes are stopped again.
    let output = user.run_with(&environment, &["cluster", "start", "--timeout", "1s"]);
    assert!(output.failure(3).contains("not healthy in time"), "{output:?}");
    assert_eq!(running(&user), 0);
    let output = user.run_with(&environment, &["cluster", "start", "other"]);
    assert!(output.failure(1).contains("there is no local cluster other"), "{output:?}");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
}

#[test]
fn a_local_cluster_whose_musterd_ends_at_once_leaves_no_process_behind() {
    let user = User::new();
    let musterd = user.fake_musterd("echo 'no etcd on the PATH' >&2\nexit 78");
    let path = musterd.as_str();
    let output = user.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "c"]);
    let error = output.failure(3);
    assert!(error.contains("musterd exited: no etcd on the PATH"), "{error}");
    assert!(error.contains("musterctl cluster destroy demo"), "{error}");
    let shown = user.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert!(user.path("c/cp-1/musterd.log").exists());

    let output = user.run_with(&[("MUSTERD", path)], &["cluster", "create", "--dir", "d"]);
    let error = output.failure(1);
    assert!(error.contains("the local cluster demo exists: none of its nodes runs"), "{error}");
    assert!(error.contains("try: `musterctl cluster start demo`, `musterctl cluster destroy"));
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(!user.path("c").exists() && !user.path("config/contexts/demo").exists());
    let output = user.run(&["cluster", "destroy"]);
    assert!(output.failure(1).contains("there is no local cluster demo"), "{output:?}");
}

#[test]
fn destroy_stops_what_was_started_and_nothing_else() {
    let user = User::new();
    let musterd = user.fake_musterd("exec sleep 300");
    let mut bystander = Command::new("sleep").arg("300").spawn().unwrap();

    let environment = [("MUSTERD", musterd.as_str())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    let output = user.run_with(&environment, &args);
    assert!(output.failure(3).contains("not healthy in time"), "{output:?}");
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    let shown = user.run(&["cluster", "show", "-o", "json"]).json();
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["running"] == false), "{shown}");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn destroy_refuses_what_is_not_its_own_below_a_node_too() {
    let user = User::new();
    let musterd = user.fake_musterd("exec sleep 300");
    let environment = [("MUSTERD", musterd.as_str())];
    let args = ["cluster", "create", "--dir", "c", "--control-planes", "1", "--timeout", "1s"];
    assert_eq!(user.run_with(&environment, &args).code, 3);

    let damaged = user.path("c/cp-1/state.damaged");
    std::fs::create_dir(&damaged).unwrap();
    let output = user.run(&["cluster", "destroy"]);
    assert!(output.failure(1).contains("c/cp-1 holds state.damaged, which"), "{output:?}");
    std::fs::remove_dir(&damaged).unwrap();

    // Like a `musterd` that was started by hand.
    std::fs::create_dir_all(user.path("c/cp-1/state")).unwrap();
    let lock = std::fs::File::create(user.path("c/cp-1/state/lock")).unwrap();
    lock.lock().unwrap();
    let output = user.run(&["cluster", "destroy"]);
    let holder = format!("c/cp-1/state is in use by process {}, which", std::process::id());
    let error = output.failure(1);
    assert!(error.contains(&holder) && error.contains("stop that musterd"), "{error}");
    assert!(user.path("c/cluster.yaml").exists() && user.path("c/worker-1").exists());
    drop(lock);
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(!user.path("c").exists());
}
