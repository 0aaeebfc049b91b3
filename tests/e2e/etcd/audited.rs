//! Actions on etcd without a majority: none is done that the audit log cannot record.

use std::time::{Duration, Instant};

use anyhow::ensure;
use muster_tests::{Cluster, Plan, scenario};

/// Time limit for a refusal. It used to be 8 s, and then the action was done.
const REFUSED: Duration = Duration::from_secs(8);

/// A certificate, a copy of all data and a defragmentation were given or done after 8 s, without a
/// trace in the cluster.
#[test]
fn without_a_majority_nothing_is_done_to_etcd_that_cannot_be_audited() {
    scenario("unaudited", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        for name in ["cp-2", "cp-3"] {
            cluster.kill(name)?;
        }
        let out = lab.dir().join("outputs");
        std::fs::create_dir_all(&out)?;
        let path = |name: &str| out.join(name).display().to_string();
        let (snapshot, client) = (path("snapshot"), path("client"));
        for args in [
            &["etcd", "snapshot", snapshot.as_str()][..],
            &["etcd", "client-config", "--out", client.as_str()],
            &["etcd", "defrag", "-n", "cp-1"],
        ] {
            let begun = Instant::now();
            let error = cluster.ctl_at("cp-1", args)?.failure(3)?;
            ensure!(error.contains("nothing was done, because the audit log"), "{args:?}: {error}");
            ensure!(error.contains("no leader answered"), "{args:?}: {error}");
            ensure!(begun.elapsed() < REFUSED, "{args:?}: refused after {:?}", begun.elapsed());
        }
        ensure!(std::fs::read_dir(&out)?.next().is_none(), "something was written");

        for name in ["cp-2", "cp-3"] {
            cluster.start(name)?;
        }
        cluster.until_healthy()?;
        // A refused action's entry may be committed with the others' return. It never says "ok".
        let audit = cluster.ctl(&["audit", "-o", "json"])?.json()?;
        let entries = audit["entries"].as_array().cloned().unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry["actor"] == "node cp-1") {
            let is_action = entry["action"].as_str().is_some_and(|text| text.contains("operator"));
            ensure!(!is_action || entry["outcome"] == "begun", "{entry}");
        }
        cluster.ctl(&["etcd", "client-config", "--out", &client])?.success()?;
        cluster.ctl(&["etcd", "defrag", "-n", "cp-1"])?.success()?;
        let audit = cluster.ctl(&["audit", "-o", "json"])?.json()?.to_string();
        for action in ["issue etcd client certificate", "defragment etcd"] {
            ensure!(audit.contains(action), "{action}: {audit}");
        }
        Ok(())
    });
}
