//! Linearizable reads: never older than an acknowledged write.

use std::path::Path;

use crate::support::{Lab, LabOptions};
use muster_kit::{bounded, until};
use tokio::task::JoinSet;

/// Deletes the committed index. It is written lazily, so a killed node may have any older one, or
/// none.
async fn delete_committed_index(raft: &Path) {
    let config = sled::Config::new().path(raft.join("data")).flush_every_ms(None);
    let db = until("the killed node releases its store", async || config.open().ok()).await;
    db.open_tree("raft").unwrap().remove(b"mcommitted").unwrap().expect("the index is there");
    db.flush().unwrap();
}

/// All nodes lost power. openraft would let the old leader continue without an election, and its
/// reads would use the old committed index: writes that were acknowledged, and read, would be
/// missing for a moment. (Seed 32 of the seeded schedules.) Here the moment is long: the node that confirms
/// the leadership was down when the entries were written, and has to receive them first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_reads_everything_it_had_committed_before_a_power_cut() -> anyhow::Result<()> {
    let mut lab = Lab::founded(LabOptions::default()).await;
    let old = lab.leader().await;
    let [witness, away] = lab.others(old)[..] else { unreachable!("three nodes") };
    lab.kill(away);
    for number in 1..=200 {
        lab.group(old).propose(lab.numbered_write(number)).await?.into_result()?;
    }
    assert_eq!(
        lab.leader_among(&[old, witness]).await,
        old,
        "another node leads now; the test shows nothing"
    );
    lab.kill(old);
    lab.kill(witness);
    delete_committed_index(&lab.nodes[old].raft_dir()).await;
    lab.restart(old).await;
    // Reads continue while the other node restarts.
    let group = lab.group(old);
    let mut read = JoinSet::new();
    read.spawn(async move {
        loop {
            if let Ok(state) = group.catch_up().await {
                return state;
            }
        }
    });
    lab.restart(away).await;
    let state = bounded("a read", read.join_next()).await.unwrap()?;
    assert_eq!(lab.number(&state), Some(200), "an acknowledged write was not read");
    Ok(())
}
