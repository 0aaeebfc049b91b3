//! Leaders that lose their quorum, and nodes that lose power.

use std::time::{Duration, Instant};

use crate::support::{Lab, LabOptions, new_token};
use muster_kit::{bounded, until};
use muster_state::{Command, Outcome};
use musterd::raft::GroupError;
use tokio::task::JoinSet;

type Test = anyhow::Result<()>;

/// Proposes entries at a leader that was cut off just now, and waits only until they are in its log.
async fn append_uncommitted(lab: &Lab, at: usize, count: u64) -> JoinSet<()> {
    let group = lab.group(at);
    let last = || group.metrics().borrow().last_log_index.unwrap_or(0);
    let wanted = last() + count;
    let mut writes = JoinSet::new();
    for number in 0..count {
        let command = lab.numbered_write(9_000 + number);
        let group = group.clone();
        writes.spawn(async move { drop(group.propose_as_leader(command).await) });
    }
    until("the entries are in the leader's log", async || (last() >= wanted).then_some(())).await;
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_steps_down_and_its_own_entries_are_overwritten() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let old = lab.leader().await;
    let others = lab.others(old);
    lab.isolate(old);
    let _writes = append_uncommitted(&lab, old, 20).await;
    until("the cut leader steps down", async || {
        (!lab.group(old).is_leader() && lab.group(old).leader().is_none()).then_some(())
    })
    .await;
    let refused = bounded("a refusal", lab.group(old).propose(lab.numbered_write(1))).await;
    assert!(matches!(refused, Err(GroupError::NoLeader { .. })), "{refused:?}");
    assert!(lab.group(old).catch_up().await.is_err(), "no read without a majority either");
    assert!(lab.group(old).leaderless_for() > Duration::ZERO);

    let new = lab.leader_among(&others).await;
    lab.group(new).propose(lab.numbered_write(2)).await?.into_result()?;
    lab.heal(old);
    let leader = lab.leader().await;
    lab.group(old).propose(lab.numbered_write(3)).await?.into_result()?;
    let state = lab.group(leader).catch_up().await?;
    assert_eq!(lab.number(&state), Some(3));
    lab.assert_equal(&[0, 1, 2]).await;
    Ok(())
}

/// The cut leader holds entries that no other node has, and the third node is lost. No other node
/// can be elected, and the remaining voter has higher terms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_leader_with_the_longest_log_does_not_block_elections() -> Test {
    let mut lab = Lab::founded(LabOptions::default()).await;
    let old = lab.leader().await;
    let [other, gone] = lab.others(old)[..] else { unreachable!() };
    lab.isolate(old);
    lab.kill(gone);
    let _writes = append_uncommitted(&lab, old, 20).await;
    until("the cut leader steps down", async || (!lab.group(old).is_leader()).then_some(())).await;
    let term = |at: usize| lab.group(at).metrics().borrow().current_term;
    let first = term(old);
    until("the other loses elections", async || (term(other) > first + 2).then_some(())).await;
    lab.heal(old);
    let healed = Instant::now();
    lab.leader_among(&[old, other]).await;
    println!("one leader {:?} after the heal", healed.elapsed());
    lab.group(other).propose(lab.numbered_write(4)).await?.into_result()?;
    lab.assert_equal(&[old, other]).await;
    Ok(())
}

/// A proposal in flight to a leader that died waited three seconds for its reply, although there
/// was another leader after half of them. This happened every time, so several attempts tell it
/// from a slow machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_in_flight_to_a_dead_leader_is_retried_at_the_next_one() -> Test {
    let mut took = Vec::new();
    while took.iter().all(|took| *took >= Duration::from_millis(900)) {
        assert!(took.len() < 5, "waited for the dead leader each time: {took:?}");
        took.push(answer_of_the_next_leader().await?);
    }
    Ok(())
}

/// Time from the election of a new leader to the replies of proposals in flight to the old one.
async fn answer_of_the_next_leader() -> Result<Duration, anyhow::Error> {
    let lab = Lab::founded(LabOptions::default()).await;
    let old = lab.leader().await;
    let others = lab.others(old);
    lab.isolate(old);
    let mut proposals = JoinSet::new();
    for at in others.clone() {
        let (group, command) = (lab.group(at), lab.numbered_write(6));
        proposals.spawn(async move { group.propose(command).await });
    }
    lab.leader_among(&others).await;
    let began = Instant::now();
    while let Some(outcome) = proposals.join_next().await {
        outcome??.into_result()?;
    }
    Ok(began.elapsed())
}

/// Of four voters three can elect. The old leader reaches one of those three and could renew its
/// lease indefinitely if it did not stop its heartbeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_reaches_one_voter_only_stops_heartbeats_and_lets_the_others_elect() -> Test {
    let lab = Lab::founded(LabOptions { founders: 4, ..LabOptions::default() }).await;
    let old = lab.leader().await;
    let others = lab.others(old);
    for other in &others[1..] {
        lab.set_cut(old, *other, true);
    }
    let began = Instant::now();
    until("the leader without majority steps down", async || {
        (!lab.group(old).is_leader()).then_some(())
    })
    .await;
    let new = until("a leader among the other three", async || {
        others.iter().copied().find(|at| lab.group(*at).is_leader())
    })
    .await;
    println!("a new leader {:?} after the cut", began.elapsed());
    lab.group(new).propose(lab.numbered_write(5)).await?.into_result()?;
    for other in &others {
        lab.set_cut(old, *other, false);
    }
    lab.leader().await;
    lab.assert_equal(&[0, 1, 2, 3]).await;
    Ok(())
}

/// openraft restores the leadership of a node that led when it was stopped, without an election.
/// All nodes lost power and only this one restarted, so it must not lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_leader_that_comes_back_alone_does_not_lead() -> Test {
    let mut lab = Lab::founded(LabOptions::default()).await;
    let old = lab.leader().await;
    for at in 0..3 {
        lab.kill(at);
    }
    lab.restart(old).await;
    until("it no longer leads", async || lab.group(old).leader().is_none().then_some(())).await;
    let refused = lab.group(old).propose(lab.numbered_write(1)).await;
    assert!(matches!(refused, Err(GroupError::NoLeader { .. })), "{refused:?}");
    for at in lab.others(old) {
        lab.restart(at).await;
    }
    lab.leader().await;
    lab.group(old).propose(lab.numbered_write(2)).await?.into_result()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_a_kill_of_the_leader_and_of_all() -> Test {
    let options = LabOptions { snapshot_every: 60, ..LabOptions::default() };
    let mut lab = Lab::founded(options).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let leader = lab.leader().await;
        let (sender, mut acks) = tokio::sync::mpsc::unbounded_channel();
        let mut writers = JoinSet::new();
        for at in 0..3 {
            let (group, sender) = (lab.group(at), sender.clone());
            let tokens: Vec<_> = (0..200).map(|_| new_token(&[], None)).collect();
            writers.spawn(async move {
                for (token, mut command) in tokens {
                    if let Command::CreateToken(create) = &mut command {
                        create.grant.roles.insert(muster_types::Role::Worker);
                        create.grant.description = "x".repeat(200);
                    }
                    if let Ok(Outcome::Done | Outcome::Unchanged) = group.propose(command).await {
                        sender.send(token.id().clone()).ok();
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..40 {
            acknowledged.push(bounded("a write is acknowledged", acks.recv()).await.unwrap());
        }
        let doomed = if round % 2 == 0 { vec![leader] } else { vec![0, 1, 2] };
        for at in &doomed {
            lab.kill(*at);
        }
        writers.shutdown().await;
        while let Some(token) = acks.recv().await {
            acknowledged.push(token);
        }
        for at in doomed {
            lab.restart(at).await;
        }
        for at in 0..3 {
            let state =
                until("a read that is up to date", async || lab.group(at).catch_up().await.ok())
                    .await;
            for token in &acknowledged {
                assert!(state.token(token).is_some(), "round {round}: {token} is lost on {at}");
            }
        }
    }
    println!("{} acknowledged writes survived", acknowledged.len());
    lab.assert_equal(&[0, 1, 2]).await;
    Ok(())
}
