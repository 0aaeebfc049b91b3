//! Twice as many machines as founders: without named founders each half could found a cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use muster_tests::wait::always;
use muster_tests::{Host, Plan, scenario};
use serde_json::json;

use super::founders::Founders;

#[test]
fn six_machines_split_in_halves_become_one_cluster_when_the_founders_are_named() {
    scenario("birth-halves", |lab| {
        let mut founders = Founders::plan(lab, &Plan::of(6).expect(3))?;
        let mut document = founders.cluster.document()?;
        document["cluster"]["founders"] = json!(["cp-1", "cp-2", "cp-4"]);
        founders.cluster.write_config(&founders.cluster.config, &document)?;
        let hosts = |numbers: [u8; 3]| -> Vec<Host> {
            let host = |n: u8| founders.cluster.node(&format!("cp-{n}")).host.clone();
            numbers.into_iter().map(host).collect()
        };
        let (left, right) = (hosts([1, 2, 3]), hosts([4, 5, 6]));
        lab.partition(&left.iter().collect::<Vec<_>>(), &right.iter().collect::<Vec<_>>())?;
        founders.cluster.start_all()?;
        let names =
            |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        founders.await_waiting_for(&names(&["cp-1", "cp-2"]), "1 more of 3 founders: cp-4")?;
        founders.await_waiting_for(&names(&["cp-4"]), "2 more of 3 founders: cp-1, cp-2")?;
        let spare = names(&["cp-3", "cp-5", "cp-6"]);
        founders.await_waiting_for(&spare, "the founders cp-1, cp-2, cp-4 to found the cluster")?;
        always("no cluster in either half", Duration::from_secs(4), || no_cluster(&founders))?;
        lab.heal()?;
        founders.all_healthy()
    });
}

fn no_cluster(founders: &Founders) -> Result<(), String> {
    let look = || -> Result<()> {
        let clusters = founders.cluster_ids_on_disk()?;
        ensure!(clusters.is_empty(), "{clusters:?}");
        Ok(())
    };
    look().map_err(|error| format!("{error:#}"))
}
