//! The Raft group of real nodes: agreement, membership, compaction.

use crate::support::{Lab, LabOptions};
use muster_kit::until;
use muster_state::command::Remove;
use muster_state::{Actor, Command, Outcome, RefusalKind};
use muster_types::NodeId;
use musterd::raft::{Group, Metrics};

type Test = anyhow::Result<()>;

fn metrics(group: &Group) -> Metrics {
    group.metrics().borrow().clone()
}

fn purged(group: &Group) -> u64 {
    metrics(group).purged.map_or(0, |id| id.index)
}

/// The voters of every configuration in force: two sets while a change is half done.
fn voters(group: &Group) -> Vec<std::collections::BTreeSet<NodeId>> {
    metrics(group).membership_config.membership().get_joint_config().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_and_a_proposal_through_any_of_them_reaches_the_leader() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let leader = lab.leader().await;
    for (number, at) in (0..3).enumerate() {
        let command = lab.numbered_write(number as u64);
        lab.group(at).propose(command.clone()).await?.into_result()?;
        let again = lab.group(lab.others(leader)[0]).propose(command).await?;
        assert_eq!(again, Outcome::Unchanged, "the same command again is harmless");
        for reader in 0..3 {
            let state = lab.group(reader).catch_up().await?;
            assert_eq!(lab.number(&state), Some(number as u64), "read through {reader}");
        }
    }
    lab.assert_equal(&[0, 1, 2]).await;
    Ok(())
}

/// A removal removes the voter first. The last voter cannot be removed, and the error was that
/// there is no leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_leads_and_the_removal_of_the_last_one_is_refused_with_the_reason() -> Test {
    let lab = Lab::founded(LabOptions { founders: 1, ..LabOptions::default() }).await;
    assert!(lab.group(0).is_leader());
    let remove = Remove { node: lab.id(0), by: Actor::Cluster, force: false };
    let outcome = lab.group(0).propose(Command::Remove(remove)).await?;
    let refusal = outcome.into_result().unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::LastControlPlane);
    lab.group(0).propose(lab.numbered_write(1)).await?.into_result()?;
    Ok(())
}

/// The voters controller found a node still in the registry, between the loss of its vote and the
/// application of its removal, and made it a voter again. That left two voters, one of them
/// removed, and no leader ever after. Both now hold a lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_and_the_voters_controller_exclude_each_other() -> Test {
    let lab = Lab::founded(LabOptions { founders: 2, voters: true, ..LabOptions::default() }).await;
    let leader = lab.leader().await;
    let other = lab.others(leader)[0];
    let group = lab.group(leader);
    let (turn, state) = group.lock_membership().await.expect("it leads");
    assert_eq!(state.control_plane_ids().len(), 2);
    let remove = Remove { node: lab.id(other), by: Actor::Cluster, force: false };
    let (proposer, mut removal) = (group.clone(), tokio::task::JoinSet::new());
    removal.spawn(async move { proposer.propose(Command::Remove(remove)).await });
    // Other commands proceed meanwhile, the removal does not.
    group.propose(Command::Barrier).await?.into_result()?;
    assert_eq!(voters(&group)[0].len(), 2, "a voter was removed without the lock");
    drop(turn);
    removal.join_next().await.expect("it was spawned")??.into_result()?;
    group.propose(Command::Barrier).await?.into_result()?;
    until("the removed node is gone for good", async || {
        let members = metrics(&group).membership_config;
        (members.nodes().count() == 1).then_some(())
    })
    .await;
    Ok(())
}

/// A leader that removed its own vote was needed until the other node had that change. If it died
/// before, no node could be elected again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_be_removed_hands_over_before_its_vote_is_taken() -> Test {
    let lab = Lab::founded(LabOptions { founders: 2, voters: true, ..LabOptions::default() }).await;
    let leader = lab.leader().await;
    let other = lab.others(leader)[0];
    let remove = Remove { node: lab.id(leader), by: Actor::Cluster, force: false };
    lab.group(leader).propose(Command::Remove(remove)).await?.into_result()?;
    let group = lab.group(other);
    group.propose(Command::Barrier).await?.into_result()?;
    let membership = metrics(&group).membership_config;
    assert_eq!(membership.membership().voter_ids().collect::<Vec<_>>(), [lab.id(other)]);
    let changed_by = membership.log_id().unwrap().leader_id.node_id;
    assert_eq!(changed_by, lab.id(other), "the removed node took its own vote");
    Ok(())
}

/// The snapshot files of a node.
fn snapshots(lab: &Lab, at: usize) -> usize {
    let dir = lab.nodes[at].plan.dir.join("raft/snapshots");
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_and_a_fresh_member_catch_up_by_snapshots() -> Test {
    let options = LabOptions { spares: 1, snapshot_every: 40, ..LabOptions::default() };
    let mut lab = Lab::founded(options).await;
    let leader = lab.leader().await;
    let [lagging, _] = lab.others(leader)[..] else { unreachable!() };
    let known = metrics(&lab.group(lagging)).last_log_index.unwrap();
    lab.isolate(lagging);
    for number in 0..150 {
        lab.group(leader).propose(lab.numbered_write(number)).await?;
    }
    let first_purge = until("the log is compacted past what the lagging one has", async || {
        Some(purged(&lab.group(leader))).filter(|purged| *purged > known)
    })
    .await;
    lab.heal(lagging);
    until("the lagging member has a snapshot of the leader", async || {
        let snapshot = metrics(&lab.group(lagging)).snapshot;
        snapshot.filter(|id| id.index >= first_purge)
    })
    .await;
    lab.assert_equal(&[0, 1, 2]).await;

    lab.admit(3).await;
    lab.start_raft(3).await;
    until("the fresh member votes everywhere", async || {
        let all = lab.ids(0..4);
        (0..4).all(|at| voters(&lab.group(at)) == [all.clone()]).then_some(())
    })
    .await;
    assert!(metrics(&lab.group(3)).snapshot.is_some(), "it had a snapshot before the log");
    for number in 150..250 {
        lab.group(3).propose(lab.numbered_write(number)).await?;
    }
    let leader = lab.leader_among(&[0, 1, 2, 3]).await;
    until("the log is compacted again", async || {
        (purged(&lab.group(leader)) > first_purge + 40).then_some(())
    })
    .await;
    lab.assert_equal(&[0, 1, 2, 3]).await;
    for at in 0..4 {
        assert!(snapshots(&lab, at) <= 3, "old snapshots of {at} are removed");
        let held = metrics(&lab.group(at));
        let held = held.last_log_index.unwrap() - purged(&lab.group(at));
        assert!(held < 130, "the log of {at} holds {held} entries");
    }
    Ok(())
}

/// The joint configuration reaches one of the old voters and is not committed when the leader dies.
/// The node that has it can only be elected by it, and must finish a change that it did not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_change_whose_leader_died_half_way_is_finished_by_the_next() -> Test {
    let options = LabOptions { spares: 1, voters: false, ..LabOptions::default() };
    let mut lab = Lab::founded(options).await;
    lab.admit(3).await;
    lab.start_raft(3).await;
    let leader = lab.leader().await;
    let [successor, other] = lab.others(leader)[..] else { unreachable!() };
    let (lock, _) = lab.group(leader).lock_membership().await.expect("it leads");
    let added = lab.id(3);
    lock.add_learner(added).await?;
    until("the learner has caught up", async || {
        let known = metrics(&lab.group(leader)).last_log_index;
        (metrics(&lab.group(3)).last_log_index == known).then_some(())
    })
    .await;
    lab.isolate(other);
    lab.isolate(3);
    let mut change = tokio::task::JoinSet::new();
    change.spawn(async move { lock.promote(added).await });
    until("the successor has the joint configuration", async || {
        (voters(&lab.group(successor)).len() == 2).then_some(())
    })
    .await;
    assert_eq!(voters(&lab.group(leader)).len(), 2, "it is only half done");
    lab.kill(leader);
    change.shutdown().await;
    lab.heal(other);
    lab.heal(3);
    let left = [successor, other, 3];
    for at in left {
        lab.nodes[at].run_voters_controller();
    }
    until("one configuration with all four", async || {
        let all = lab.ids(0..4);
        left.iter().all(|at| voters(&lab.group(*at)) == [all.clone()]).then_some(())
    })
    .await;
    lab.leader_among(&left).await;
    lab.group(3).propose(lab.numbered_write(1)).await?.into_result()?;
    lab.assert_equal(&left).await;
    Ok(())
}
