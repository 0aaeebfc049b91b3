//! Local clusters with a script in place of `musterd`.

use crate::support::User;

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
    assert!(output.failure(1).contains("context demo already exists"), "{output:?}");
    assert_eq!(user.run(&["cluster", "destroy"]).code, 0);
    assert!(!user.path("c").exists() && !user.path("config/contexts/demo").exists());
    let output = user.run(&["cluster", "destroy"]);
    assert!(output.failure(1).contains("there is no local cluster demo"), "{output:?}");
}

#[test]
fn destroy_stops_what_was_started_and_nothing_else() {
    let user = User::new();
    let musterd = user.fake_musterd("exec sleep 300");
    let mut bystander = std::process::Command::new("sleep").arg("300").spawn().unwrap();

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
